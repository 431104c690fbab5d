// What the commands of the program share: how they are declared, how they end, how they are
// stopped, and the flags of those that talk to a server.
#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <functional>
#include <string>
#include <string_view>

#include "aionbd/status.h"
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
/// Declares a command's arguments on its own CLI::App.
using CommandDeclare = CommandRun (*)(CLI::App& app);

CommandRun declare_serve(CLI::App& app);
CommandRun declare_healthcheck(CLI::App& app);
CommandRun declare_import(CLI::App& app);
CommandRun declare_export(CLI::App& app);
CommandRun declare_bench(CLI::App& app);
CommandRun declare_inspect(CLI::App& app);
CommandRun declare_verify(CLI::App& app);
CommandRun declare_repair(CLI::App& app);
CommandRun declare_backup(CLI::App& app);
CommandRun declare_restore(CLI::App& app);
CommandRun declare_soak(CLI::App& app);
CommandRun declare_version(CLI::App& app);

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

  void declare(CLI::App& app);
  /// Errors: invalid_argument.
  Result<ClientOptions> client_options() const;
};

}  // namespace aionbd
