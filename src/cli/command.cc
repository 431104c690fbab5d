// Exit codes, signals and the flags of client commands.
#include "cli/command.h"

#include <fmt/format.h>
#include <semaphore.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace aionbd {
namespace {

std::atomic<bool> stopping{false};
sem_t stop_semaphore;

static_assert(std::atomic<bool>::is_always_lock_free, "set in a signal handler");

extern "C" void on_stop_signal(int number) {
  if (stopping.exchange(true)) _exit(128 + number);
  sem_post(&stop_semaphore);
}

bool is_visible_ascii(std::string_view text) {
  for (const char c : text) {
    if (c < 0x21 || c > 0x7E) return false;
  }
  return true;
}

}  // namespace

int exit_code_of(Code code) {
  switch (code) {
    case Code::kOk: return kExitOk;
    case Code::kInvalidArgument:
    case Code::kNotFound:
    case Code::kAlreadyExists:
    case Code::kFailedPrecondition:
    case Code::kUnauthenticated:
    case Code::kPermissionDenied: return kExitUsage;
    case Code::kCorruption: return kExitDamaged;
    case Code::kInternal: return kExitDefect;
    case Code::kResourceExhausted:
    case Code::kDeadlineExceeded:
    case Code::kUnavailable:
    case Code::kIoError:
    case Code::kStorageFull: return kExitIo;
    case Code::kInUse: return kExitInUse;
  }
  return kExitDefect;
}

int exit_with(std::string_view command, const Status& status) {
  fmt::print(stderr, "aionbd {}: {}\n", command, status.message());
  return exit_code_of(status.code());
}

const std::atomic<bool>& stop_signal() {
  static const bool installed = [] {
    sem_init(&stop_semaphore, 0, 0);
    struct sigaction action {};
    action.sa_handler = on_stop_signal;
    action.sa_flags = SA_RESTART;
    sigaction(SIGTERM, &action, nullptr);
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGHUP, &action, nullptr);  // its terminal is gone: a reason to end, not to die
    return true;
  }();
  static_cast<void>(installed);
  return stopping;
}

void wait_for_stop_signal() {
  stop_signal();
  while (sem_wait(&stop_semaphore) != 0 && errno == EINTR) {
  }
}

void ServerFlags::declare(Arguments args) {
  url_argument = args.option("--url", url, "Server, http://host:port")
                     .variable("AIONBD_URL")
                     .show_default()
                     .group("Server");
  args.option("--api-key", api_key, "Key sent as x-api-key (better from the environment)")
      .variable("AIONBD_API_KEY")
      .group("Server");
  args.option("--bearer-token", bearer_token,
              "Token sent as Authorization: Bearer (better from the environment)")
      .variable("AIONBD_BEARER_TOKEN")
      .group("Server");
  args.option("--timeout-ms", timeout_ms, "Longest wait for one answer")
      .between(1U, 3600000U)
      .show_default()
      .group("Server");
  args.option("--retry-seconds", retry_seconds,
              "How long a request is repeated while the server is busy or away")
      .between(0U, 86400U)
      .show_default()
      .group("Server");
}

Result<ClientOptions> ServerFlags::client_options() const {
  ClientOptions options;
  ASSIGN_OR_RETURN(options.url, parse_server_url(url));
  if (!is_visible_ascii(api_key) || !is_visible_ascii(bearer_token)) {
    return invalid_argument("--api-key and --bearer-token take visible ASCII characters only");
  }
  options.api_key = api_key;
  options.bearer_token = bearer_token;
  options.timeout = std::chrono::milliseconds(timeout_ms);
  options.retry_for = std::chrono::seconds(retry_seconds);
  return options;
}

}  // namespace aionbd
