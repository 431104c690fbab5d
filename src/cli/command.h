// What the commands of the program share: how they are declared, how they end, how they are
// stopped, and the flags of those that talk to a server.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <string_view>

#include "aionbd/status.h"
#include "cli/arguments.h"
#include "cli/client.h"

namespace aionbd {

/// Exit codes of the program (sysexits.h; docs/http-api.md "Program").
inline constexpr int kExitOk = 0;
inline constexpr int kExitUsage = 64;
inline constexpr int kExitDamaged = 65;
inline constexpr int kExitDefect = 70;
inline constexpr int kExitIo = 74;
inline constexpr int kExitInUse = 75;
/// `healthcheck` answers yes or no: container runtimes know 0 and 1 only.
inline constexpr int kExitNotReady = 1;

/// The exit code an error stands for.
int exit_code_of(Code code);
/// Prints "aionbd COMMAND: message" to stderr and returns the exit code. REQUIRES: !status.ok().
int exit_with(std::string_view command, const Status& status);

/// Runs a command whose arguments are parsed; returns its exit code.
using CommandRun = std::function<int()>;
/// Declares what a command takes.
using CommandDeclare = CommandRun (*)(Arguments args);

CommandRun declare_serve(Arguments args);
CommandRun declare_healthcheck(Arguments args);
CommandRun declare_import(Arguments args);
CommandRun declare_export(Arguments args);
CommandRun declare_bench(Arguments args);
CommandRun declare_inspect(Arguments args);
CommandRun declare_verify(Arguments args);
CommandRun declare_repair(Arguments args);
CommandRun declare_backup(Arguments args);
CommandRun declare_restore(Arguments args);
CommandRun declare_soak(Arguments args);
CommandRun declare_version(Arguments args);

/// True once SIGTERM, SIGINT or SIGHUP came. The first call installs the handlers; a second signal
/// ends the process at once with 128 + its number.
const std::atomic<bool>& stop_signal();
/// Waits for it.
void wait_for_stop_signal();

/// Declares --url, --api-key, ... on `app`; they are also read from AIONBD_URL, AIONBD_API_KEY and
/// AIONBD_BEARER_TOKEN, because arguments can be seen by every user of the machine.
struct ServerFlags {
  std::string url = "http://127.0.0.1:8080";
  std::string api_key, bearer_token;
  uint32_t timeout_ms = 60000;
  uint32_t retry_seconds = 60;
  Argument url_argument;

  void declare(Arguments args);
  /// Errors: invalid_argument.
  Result<ClientOptions> client_options() const;
};

}  // namespace aionbd
