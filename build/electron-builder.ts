import type { Configuration } from "electron-builder";
import { LINUX_EXECUTABLE, setFuses } from "./fuses.ts";

/**
 * What goes into the installers. All natives are Node-API with binaries in their packages, so nothing is rebuilt for
 * Electron; the binaries of other systems and the sources they were made from stay out.
 */
const config: Configuration = {
  appId: "app.weir.desktop",
  productName: "Weir",
  copyright: "Copyright © the Weir authors, AGPL-3.0-only",
  directories: { output: "dist", buildResources: "build" },
  files: [
    "package.json",
    "LICENSE",
    "out/**",
    "!out/.inputs",
    "!**/*.map",
    "native/build/Release/weir_native.node",
    // Six platforms in one package, 151 MB. ${platform} and ${arch} are those of the target.
    "!node_modules/@signalapp/libsignal-client/prebuilds/!(${platform}-${arch})/**",
    "!node_modules/better-sqlite3{,-multiple-ciphers}/prebuilds/!(${platform}-${arch}).node",
    "!node_modules/better-sqlite3{,-multiple-ciphers}/{deps,src,binding.gyp}",
    "!node_modules/better-sqlite3{,-multiple-ciphers}/{deps,src}/**",
    "!node_modules/node-datachannel/{src,CMakeLists.txt,*.config.*,*.md}",
    "!node_modules/node-datachannel/src/**",
    "!node_modules/{@types,undici-types,type-fest,node-addon-api}/**",
    // Of the server with several nodes, which is none of the app's (src-server/distributed.ts, metrics.ts).
    "!node_modules/{pg,pg-*,pgpass,postgres-*,redis,@redis,prom-client,tdigest,bintrees}/**",
    // Declarations and sources that are of use to compilers only.
    "!node_modules/**/*.{ts,mts,cts,tsbuildinfo}",
    "!node_modules/**/{CHANGELOG*,README*,HISTORY*,.github,.eslintrc*,tsconfig*.json}",
  ],
  // The system's loader reads libraries from real files. Only them: what is inside the archive is covered by its checksum.
  asar: { smartUnpack: false },
  asarUnpack: ["**/*.node"],
  npmRebuild: false,
  nodeGypRebuild: false,
  afterPack: setFuses,
  protocols: [{ name: "Weir invitation", schemes: ["weir"] }],
  publish: null,
  artifactName: "${productName}-${version}-${os}-${arch}.${ext}",
  icon: "build/icon.png",

  linux: {
    target: ["AppImage", "deb"],
    executableName: LINUX_EXECUTABLE,
    category: "Network",
    synopsis: "Encrypted messenger for large files",
    maintainer: "The Weir authors <noreply@weir.invalid>",
    vendor: "The Weir authors",
    desktop: { entry: { Categories: "Network;InstantMessaging;FileTransfer;", StartupWMClass: "weir" } },
  },
  deb: { packageCategory: "net", priority: "optional" },
  mac: {
    target: ["dmg", "zip"],
    category: "public.app-category.social-networking",
    hardenedRuntime: true,
    gatekeeperAssess: false,
    entitlements: "build/entitlements.mac.plist",
    entitlementsInherit: "build/entitlements.mac.inherit.plist",
    extendInfo: {
      NSLocalNetworkUsageDescription: "Weir sends files straight to contacts on the same network.",
      LSFileQuarantineEnabled: false,
    },
  },
  win: { target: ["nsis"] },
  nsis: { oneClick: true, perMachine: false, deleteAppDataOnUninstall: false },
};

export default config;
