{
  "targets": [
    {
      "target_name": "weir_native",
      "sources": ["src/addon.cc"],
      "dependencies": ["<!(node -p \"require('node-addon-api').targets\"):node_addon_api_except"],
      # Node-API is stable across Node and Electron: one build serves both, whatever headers it was made with.
      "defines": ["NAPI_VERSION=8"],
      "conditions": [
        ["OS=='linux'", { "sources": ["src/files_linux.cc"], "cflags": ["-Wall", "-Wextra", "-O2"] }],
        ["OS=='mac'", { "sources": ["src/files_mac.cc"], "xcode_settings": { "MACOSX_DEPLOYMENT_TARGET": "12.0" } }],
        ["OS=='win'", { "sources": ["src/files_win.cc"], "defines": ["UNICODE", "_UNICODE", "NOMINMAX"] }]
      ]
    }
  ]
}
