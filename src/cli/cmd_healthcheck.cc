// `aionbd healthcheck`: is the server ready? For container and service managers.
#include <fmt/format.h>

#include <cstdlib>
#include <memory>
#include <string_view>

#include "cli/command.h"

namespace aionbd {
namespace {

constexpr const char* kHealthcheckExamples = R"(Exit codes: 0 ready, 1 not, 64 bad argument.

Examples:
  aionbd healthcheck
  HEALTHCHECK CMD ["aionbd", "healthcheck", "--quiet"])";

/// The server of this machine, or of this container, where AIONBD_BIND says how it listens.
std::string local_url() {
  const char* variable = std::getenv("AIONBD_BIND");
  std::string bind = variable == nullptr || *variable == '\0' ? "127.0.0.1:8080" : variable;
  // An address that means "every address" is none to connect to.
  for (const auto& [any, local] :
       {std::pair<std::string_view, const char*>{"0.0.0.0:", "127.0.0.1:"},
        std::pair<std::string_view, const char*>{"[::]:", "[::1]:"}}) {
    if (bind.starts_with(any)) bind.replace(0, any.size(), local);
  }
  return "http://" + bind;
}

struct HealthFlags {
  std::string url = local_url();
  uint32_t timeout_ms = 2000;
  bool quiet = false;
};

int run(const HealthFlags& flags) {
  ClientOptions options;
  auto url = parse_server_url(flags.url);
  if (!url.has_value()) return exit_with("healthcheck", url.error());
  options.url = *url;
  options.connect_timeout = std::chrono::milliseconds(flags.timeout_ms);
  options.timeout = std::chrono::milliseconds(flags.timeout_ms);
  HttpClient client(options);
  const auto response = client.request("GET", "/ready");
  const Status status = response.has_value() ? status_of(*response) : response.error();
  if (status.ok()) {
    if (!flags.quiet) fmt::print("ready\n");
    return kExitOk;
  }
  if (!flags.quiet) fmt::print(stderr, "not ready: {}\n", status.message());
  return kExitNotReady;
}

}  // namespace

CommandRun declare_healthcheck(Arguments args) {
  auto flags = std::make_shared<HealthFlags>();
  args.option("--url", flags->url, "Server, http://host:port; from AIONBD_BIND otherwise")
      .variable("AIONBD_URL")
      .show_default();
  args.option("--timeout-ms", flags->timeout_ms, "Longest wait")
      .between(1U, 600000U)
      .show_default();
  args.flag("--quiet", flags->quiet, "Only the exit code");
  args.footer(kHealthcheckExamples);
  return [flags] { return run(*flags); };
}

}  // namespace aionbd
