// `aionbd serve`: the server as a process. Settings come from flags, environment and config file
// through the one table of server/settings.h; here is what belongs to a process: signals, limits,
// log lines, exit codes.
#include <fmt/format.h>
#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <map>
#include <memory>
#include <thread>
#include <variant>

#include "aionbd/database.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/log_lines.h"
#include "io/file_system.h"
#include "server/server.h"
#include "server/settings.h"

extern "C" char** environ;

namespace aionbd {
namespace {

constexpr const char* kServeExamples =
    R"(Each setting is a flag, an environment variable (--data-dir is AIONBD_DATA_DIR) and a key
of the config file (data_dir = "..."); a flag wins over the environment, that over the file.

Examples:
  aionbd serve --data-dir /var/lib/aionbd --bind 0.0.0.0:8080
  AIONBD_LOG_FORMAT=json aionbd serve --config /etc/aionbd.conf
  aionbd inspect settings

SIGTERM, SIGINT or SIGHUP: finishes requests in progress and exits 0; a second one exits
at once.
Exit codes: 64 bad setting, 65 damaged data, 74 storage, 75 data directory in use.)";

/// A config file is a page or two.
constexpr uint64_t kConfigBytesMax = uint64_t{1} << 20;
constexpr const char* kConfigVariable = "AIONBD_CONFIG";

struct ServeFlags {
  std::map<std::string, std::string> settings;  // by name
  std::string config;
};

/// The heading of a setting in --help, by the first words of its name.
const char* group_of(std::string_view name) {
  struct Row {
    std::string_view prefix;
    const char* group;
  };
  static constexpr Row kGroups[] = {
      {"auth_", "Authentication"},
      {"tls_", "TLS"},
      {"log_", "Log"},
      {"wal_", "Durability"},
      {"checkpoint_", "Durability"},
      {"async_", "Durability"},
      {"disk_", "Durability"},
      {"persistence_", "Durability"},
      {"l2_", "Indexes"},
      {"ivf_", "Indexes"},
      {"bind", "Server"},
      {"data_dir", "Server"},
      {"backup_dir", "Server"},
  };
  for (const Row& row : kGroups) {
    if (name.starts_with(row.prefix)) return row.group;
  }
  return "Limits";
}

bool is_number(const SettingRow& row) {
  return std::holds_alternative<uint64_t Settings::*>(row.field);
}

std::string help_of(const SettingRow& row) {
  std::string help(row.help);
  std::string fact;
  if (!row.unit.empty() && row.unit != "bool" && !is_number(row))
    fact = std::string(row.unit) + "; ";
  if (!row.default_text.empty()) fact += "default " + std::string(row.default_text);
  if (is_number(row) && row.default_text != "0") fact += " " + std::string(row.unit);
  return fact.empty() ? help : help + " [" + fact + "]";
}

Result<LoadedSettings> gather_settings(const ServeFlags& flags) {
  // Variables of the client commands are no settings, and no typing slips either.
  static constexpr std::string_view kClientVariables[] = {"AIONBD_URL", "AIONBD_API_KEY",
                                                          "AIONBD_BEARER_TOKEN"};
  SettingSources sources;
  sources.flags = flags.settings;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view name = text.substr(0, equals);
    if (std::find(std::begin(kClientVariables), std::end(kClientVariables), name) !=
        std::end(kClientVariables)) {
      continue;
    }
    sources.environment.emplace(name, text.substr(equals + 1));
  }
  if (!flags.config.empty()) {
    auto text = posix_file_system().read(flags.config, kConfigBytesMax);
    if (!text.has_value()) {
      return invalid_argument("cannot read the config file " + flags.config + ": " +
                              text.error().message());
    }
    sources.config_text = std::move(*text);
    sources.config_name = flags.config;
  }
  return load_settings(sources);
}

/// Blocks of bodies, records and open rows come and go with every batch. By default the C library
/// gives each back to the system and faults it in again, page by page: 0.5 ms of CPU for a batch of
/// 800 KB. Keeping up to this much free memory at the top of a heap avoids that.
constexpr int kHeapKeptBytes = 64 << 20;
/// Larger blocks still come from the system directly, and go back to it (the most that mallopt
/// accepts).
constexpr int kHeapBlockBytesMax = 32 << 20;

/// All threads share one heap, the only one whose free memory malloc_trim gives back whole: of
/// eight for each core, which the C library makes, each keeps the most that it ever held. Small
/// blocks come from the threads' own caches and wait for nobody.
constexpr int kHeaps = 1;

/// Under a memory budget, one in this many of its bytes is kept, and blocks of one in as many come
/// from the system directly.
constexpr uint64_t kBudgetPartsKept = 64;

void prepare_process(uint64_t memory_budget) {
  int kept = kHeapKeptBytes;
  int block = kHeapBlockBytesMax;
  if (memory_budget != 0) {
    const uint64_t part = memory_budget / kBudgetPartsKept;
    kept = static_cast<int>(std::min<uint64_t>(part, kHeapKeptBytes));
    block = static_cast<int>(std::min<uint64_t>(part, kHeapBlockBytesMax));
  }
  mallopt(M_ARENA_MAX, kHeaps);
  mallopt(M_MMAP_THRESHOLD, block);
  mallopt(M_TRIM_THRESHOLD, kept);
  // A peer that leaves and a full quota are errors of the call, not ends of the process.
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  // No core dumps: they would hold keys and vectors. One byte rather than none, because a dump
  // handler behind a pipe ignores every other limit (core(5)).
  const rlimit no_core{1, 1};
  setrlimit(RLIMIT_CORE, &no_core);
  umask(077);
}

/// Descriptors for log, manifest, segments being written, and what a connection needs besides.
constexpr uint64_t kDescriptorsReserved = 64;

/// As many as wanted, or as the system's limit of open files leaves room for beside the store.
uint64_t connections_max(uint64_t wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  limit.rlim_cur = limit.rlim_max;  // the soft limit is there for programs that use select()
  setrlimit(RLIMIT_NOFILE, &limit);
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return wanted;
  const uint64_t room = std::max<uint64_t>(limit.rlim_cur, kDescriptorsReserved + 1);
  return std::min(wanted, room - kDescriptorsReserved);
}

uint64_t milliseconds_since(std::chrono::steady_clock::time_point start) {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                   std::chrono::steady_clock::now() - start)
                                   .count());
}

/// Opens the database and says so in one line. `port` is known once the server listens.
Result<std::unique_ptr<Database>> open_database(const Settings& settings, const LogSink& sink,
                                                const std::shared_future<uint16_t>& port) {
  const auto start = std::chrono::steady_clock::now();
  DatabaseOptions options = database_options(settings);
  options.log = sink;
  auto database = Database::open(std::move(options));
  if (!database.has_value()) return database;
  const Logger log(sink);
  const auto collections = (*database)->list_collections();
  uint64_t points = 0;
  for (const CollectionInfo& info : collections) points += info.points_count;
  for (const std::string& name : (*database)->health().quarantined) {
    log.error(fmt::format("serve: collection is damaged and not served collection=\"{}\"", name));
  }
  log.info(fmt::format(
      "serve: database open version={} simd={} address={} port={} data_dir=\"{}\" collections={} "
      "points={} recovery_ms={}",
      version(), Database::simd_target(), settings.bind_address(), port.get(),
      settings.persistence_enabled ? settings.data_dir : "(memory)", collections.size(), points,
      milliseconds_since(start)));
  return database;
}

int run_server(const Settings& settings, const LogSink& sink) {
  std::promise<uint16_t> port;
  const std::shared_future<uint16_t> port_known = port.get_future().share();
  auto server = Server::start(
      settings,
      [&settings, &sink, port_known] { return open_database(settings, sink, port_known); },
      Logger(sink));
  if (!server.has_value()) return exit_with("serve", server.error());
  port.set_value((*server)->port());

  // Left behind when the database cannot be opened: it waits for a signal that need not come.
  std::thread([stopped = server->get()] {
    wait_for_stop_signal();
    stopped->request_stop();
  }).detach();
  const Status ended = (*server)->wait();
  if (ended.ok()) return kExitOk;
  if (ended.code() == Code::kDeadlineExceeded) {
    // Nothing may be destroyed under the feet of those requests; the log makes this exit safe.
    Logger(sink).warning("serve: " + ended.message());
    _exit(kExitOk);
  }
  Logger(sink).error(
      fmt::format("serve: cannot open the database error=\"{}\"", code_name(ended.code())));
  // A directory that cannot be made or found is the medium's matter here, not a wrong argument.
  return exit_with("serve", ended.code() == Code::kNotFound ? io_error(ended.message()) : ended);
}

int run(const ServeFlags& flags) {
  auto loaded = gather_settings(flags);
  if (!loaded.has_value()) return exit_with("serve", loaded.error());
  prepare_process(loaded->settings.memory_budget());
  stop_signal();  // from here on a signal is a request, whatever thread it meets
  Settings& settings = loaded->settings;
  const uint64_t connections = connections_max(settings.max_connections);
  const LogSink sink = stderr_log_sink(settings.log_level, settings.log_format == "json");
  for (const std::string& warning : loaded->warnings) Logger(sink).warning("settings: " + warning);
  if (connections < settings.max_connections) {
    Logger(sink).warning(fmt::format(
        "serve: the system's limit of open files allows fewer connections max_connections={} "
        "used={}",
        settings.max_connections, connections));
    settings.max_connections = connections;
  }
  return run_server(settings, sink);
}

}  // namespace

CommandRun declare_serve(Arguments args) {
  auto flags = std::make_shared<ServeFlags>();
  args.option("--config", flags->config, "File of settings, key = value per line")
      .variable(kConfigVariable)
      .group("Server");
  for (const SettingRow& row : setting_rows()) {
    const std::string name(row.name);
    args.option(
            setting_flag(row),
            [flags, name](const std::string& value) { flags->settings[name] = value; },
            help_of(row))
        .group(group_of(row.name))
        .value_name(is_number(row) ? "N" : "TEXT");
  }
  args.footer(kServeExamples);
  return [flags] { return run(*flags); };
}

}  // namespace aionbd
