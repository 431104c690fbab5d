// `aionbd version`: what this binary is.
#include <fmt/format.h>

#include <memory>

#include "aionbd/database.h"
#include "cli/command.h"

namespace aionbd {
namespace {

#if defined(__clang__)
constexpr const char* kCompiler = "clang " __clang_version__;
#else
constexpr const char* kCompiler = "gcc " __VERSION__;
#endif

#ifdef NDEBUG
constexpr const char* kBuild = "release";
#else
constexpr const char* kBuild = "debug";
#endif

}  // namespace

CommandRun declare_version(Arguments args) {
  auto json = std::make_shared<bool>(false);
  args.flag("--json", *json, "One JSON object");
  return [json] {
    const char* form =
        *json ? "{{\"version\":\"{}\",\"build\":\"{}\",\"compiler\":\"{}\",\"simd\":\"{}\"}}\n"
              : "aionbd {} ({} build, {}, simd {})\n";
    fmt::print(fmt::runtime(form), version(), kBuild, kCompiler, Database::simd_target());
    return kExitOk;
  };
}

}  // namespace aionbd
