// The JavaScript face of files.h. Holds no state, so it may be loaded by the main thread and by workers alike.

#include <napi.h>

#include <cmath>
#include <string>
#include <utility>

#include "files.h"

namespace {

// The largest integer that a JavaScript number holds exactly.
constexpr double kBytesMax = 9007199254740991.0;

/** An Error with Node's fields `code` and `syscall`, and its form of message. */
Napi::Error ErrorOf(Napi::Env env, const weir::Outcome& outcome) {
  std::string text = std::string(outcome.code) + ": " + outcome.message + ", " + outcome.call;
  Napi::Error error = Napi::Error::New(env, text);
  error.Set("code", Napi::String::New(env, outcome.code));
  error.Set("syscall", Napi::String::New(env, outcome.call));
  return error;
}

void ThrowUnlessDone(Napi::Env env, const weir::Outcome& outcome) {
  if (outcome.code != nullptr) throw ErrorOf(env, outcome);
}

/** A path argument. A NUL inside would silently name another file in every C call below. */
std::string TextArgument(const Napi::CallbackInfo& info, size_t index) {
  if (info.Length() <= index || !info[index].IsString()) {
    throw Napi::TypeError::New(info.Env(), "a string is needed as argument " + std::to_string(index + 1));
  }
  std::string text = info[index].As<Napi::String>().Utf8Value();
  if (text.empty() || text.find('\0') != std::string::npos) {
    throw Napi::TypeError::New(info.Env(), "argument " + std::to_string(index + 1) + " is empty or holds a NUL");
  }
  return text;
}

double NumberArgument(const Napi::CallbackInfo& info, size_t index, double max) {
  if (info.Length() > index && info[index].IsNumber()) {
    double value = info[index].As<Napi::Number>().DoubleValue();
    if (value >= 0 && value <= max && std::floor(value) == value) return value;
  }
  throw Napi::TypeError::New(info.Env(), "a whole number is needed as argument " + std::to_string(index + 1));
}

void Reserve(const Napi::CallbackInfo& info) {
  int fd = static_cast<int>(NumberArgument(info, 0, 2147483647.0));
  uint64_t bytes = static_cast<uint64_t>(NumberArgument(info, 1, kBytesMax));
  ThrowUnlessDone(info.Env(), weir::Reserve(fd, bytes));
}

void RenameNoReplace(const Napi::CallbackInfo& info) {
  ThrowUnlessDone(info.Env(), weir::RenameNoReplace(TextArgument(info, 0), TextArgument(info, 1)));
}

void FsyncDirectory(const Napi::CallbackInfo& info) {
  ThrowUnlessDone(info.Env(), weir::FsyncDirectory(TextArgument(info, 0)));
}

void MarkQuarantine(const Napi::CallbackInfo& info) {
  ThrowUnlessDone(info.Env(), weir::MarkQuarantine(TextArgument(info, 0), TextArgument(info, 1)));
}

/** On a thread of libuv's pool: a disk that is busy may take seconds. */
class SyncWorker : public Napi::AsyncWorker {
 public:
  SyncWorker(Napi::Env env, std::string path)
      : Napi::AsyncWorker(env), deferred_(Napi::Promise::Deferred::New(env)), path_(std::move(path)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override { outcome_ = weir::SyncFileSystem(path_); }
  void OnOK() override {
    if (outcome_.code == nullptr) {
      deferred_.Resolve(Env().Undefined());
    } else {
      deferred_.Reject(ErrorOf(Env(), outcome_).Value());
    }
  }

 private:
  Napi::Promise::Deferred deferred_;
  std::string path_;
  weir::Outcome outcome_;
};

Napi::Value SyncFileSystem(const Napi::CallbackInfo& info) {
  // Owned by libuv's queue, which deletes it after OnOK.
  auto* worker = new SyncWorker(info.Env(), TextArgument(info, 0));
  Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("reserve", Napi::Function::New(env, Reserve, "reserve"));
  exports.Set("renameNoReplace", Napi::Function::New(env, RenameNoReplace, "renameNoReplace"));
  exports.Set("fsyncDirectory", Napi::Function::New(env, FsyncDirectory, "fsyncDirectory"));
  exports.Set("syncFileSystem", Napi::Function::New(env, SyncFileSystem, "syncFileSystem"));
  exports.Set("markQuarantine", Napi::Function::New(env, MarkQuarantine, "markQuarantine"));
  return exports;
}

}  // namespace

NODE_API_MODULE(weir_native, Init)
