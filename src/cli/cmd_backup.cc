// `aionbd backup` and `aionbd restore`: a data directory, or what a server serves, as a backup, and
// back.
#include <fmt/format.h>
#include <simdjson.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <thread>

#include "aionbd/store.h"
#include "cli/command.h"
#include "cli/store_report.h"

namespace aionbd {
namespace {

constexpr const char* kBackupExamples =
    R"(Adds a backup to the backups in a directory. Segment files never change, so each is
stored once, whichever backups need it: the second backup of a large store is small.
Everything is packed with zstd and carries checksums; a damaged store is not backed
up (65). A backup that was cut short leaves the earlier ones as they were.

With --keep N all backups but the newest N are removed when the new one is complete,
with every file that only they needed; a crash meanwhile leaves those N whole.

With --url a running server makes it, in the directory that its setting
AIONBD_BACKUP_DIR names, while it reads and writes: the backup holds one moment, with
everything acknowledged before; how many stay there, AIONBD_BACKUP_KEEP says. With
--data-dir the server must be stopped.

Examples:
  aionbd backup --url http://127.0.0.1:8080
  aionbd backup --data-dir ./data --to /backups/aionbd --keep 7
  aionbd restore /backups/aionbd --list
  aionbd restore /backups/aionbd --data-dir ./data)";

constexpr const char* kRestoreExamples =
    R"(Unpacks a backup beside the data directory, verifies every byte of it, and only then
puts it in its place, in one step. With --replace the store that was there is set
aside, not removed.

Exit codes: 65 the backup is damaged (nothing was changed), 74 there is not enough free
space for what it unpacks to (nothing was written), 75 a server has the directory open.

Examples:
  aionbd restore /backups/aionbd --data-dir ./data
  aionbd restore /backups/aionbd --number 3 --data-dir ./data --replace)";

struct BackupFlags {
  std::string dir;
  std::string to;
  BackupOptions options;
  bool json = false;
  bool quiet = false;
  ServerFlags server;
};

/// A server packs some 100 MB a second; a terabyte takes hours.
constexpr std::chrono::hours kOnlineTimeMax{24};
/// How long asking for progress may take: it is not worth waiting for.
constexpr std::chrono::seconds kProgressTimeMax{2};

Value value_of(const BackupReport& report) {
  Value::Object out;
  out["number"] = report.number;
  out["last_lsn"] = report.last_lsn;
  out["files"] = report.files;
  out["files_shared"] = report.files_shared;
  out["raw_bytes"] = report.raw_bytes;
  out["packed_bytes"] = report.packed_bytes;
  out["written_bytes"] = report.written_bytes;
  out["removed"] = report.removed;
  out["removed_bytes"] = report.removed_bytes;
  return out;
}

void print_json(const Value& value) {
  std::string text;
  append_json_value(value, &text);
  fmt::print("{}\n", text);
}

void print_report(const BackupFlags& flags, const BackupReport& report, std::string_view where,
                  double seconds) {
  if (flags.json) {
    print_json(value_of(report));
    return;
  }
  fmt::print("backup {} in {}: {} files, {} of them stored before; {} of {} written in {:.1f} s\n",
             report.number, where, with_thousands(report.files),
             with_thousands(report.files_shared), human_bytes(report.written_bytes),
             human_bytes(report.raw_bytes), seconds);
  if (report.removed > 0) {
    fmt::print("older backups removed: {}, {} freed\n", with_thousands(report.removed),
               human_bytes(report.removed_bytes));
  }
}

/// The report in a server's answer. Errors: internal: it is no such answer.
Result<BackupReport> read_report(const std::string& body) {
  simdjson::dom::parser parser;
  simdjson::dom::element answer;
  BackupReport out;
  const bool read = parser.parse(body).get(answer) == simdjson::SUCCESS &&
                    answer["number"].get(out.number) == simdjson::SUCCESS &&
                    answer["last_lsn"].get(out.last_lsn) == simdjson::SUCCESS &&
                    answer["files"].get(out.files) == simdjson::SUCCESS &&
                    answer["files_shared"].get(out.files_shared) == simdjson::SUCCESS &&
                    answer["raw_bytes"].get(out.raw_bytes) == simdjson::SUCCESS &&
                    answer["packed_bytes"].get(out.packed_bytes) == simdjson::SUCCESS &&
                    answer["written_bytes"].get(out.written_bytes) == simdjson::SUCCESS &&
                    answer["removed"].get(out.removed) == simdjson::SUCCESS &&
                    answer["removed_bytes"].get(out.removed_bytes) == simdjson::SUCCESS;
  if (!read) return internal_error("the server's answer is not a backup's: is it an older one?");
  return out;
}

/// Draws how far the server says it is, if it says so.
void show_progress(HttpClient& client, const StoreProgress& draw) {
  const auto answer = client.request("GET", "/metrics");
  if (!answer.has_value() || answer->status != 200) return;
  simdjson::dom::parser parser;
  simdjson::dom::element metrics;
  double running = 0, total = 0, done = 0;
  if (parser.parse(answer->body).get(metrics) != simdjson::SUCCESS ||
      metrics["backup_in_flight"].get(running) != simdjson::SUCCESS ||
      metrics["backup_bytes"].get(total) != simdjson::SUCCESS ||
      metrics["backup_bytes_done"].get(done) != simdjson::SUCCESS) {
    return;
  }
  if (running > 0) draw(static_cast<uint64_t>(done), static_cast<uint64_t>(total));
}

int run_online(const BackupFlags& flags) {
  auto options = flags.server.client_options();
  if (!options.has_value()) return exit_with("backup", options.error());
  StoreProgressBar bar(flags.quiet || flags.json);
  const StoreProgress draw = bar.callback();
  stop_signal();
  Result<ServerResponse> answer = unavailable("no answer yet");
  std::atomic<bool> answered{false};
  std::thread asking([&, asked = *options]() mutable {
    asked.timeout = kOnlineTimeMax;
    // Not repeated: without an answer nobody knows whether it is being made.
    answer = HttpClient(asked).request("POST", "/backup");
    answered.store(true);
  });
  options->timeout = kProgressTimeMax;
  HttpClient watcher(*options);
  constexpr std::chrono::milliseconds kLook{100};
  while (!answered.load()) {
    std::this_thread::sleep_for(kLook);
    if (stop_signal().load()) {
      bar.clear();
      fmt::print(stderr, "aionbd backup: not waited for; the server goes on with it\n");
      std::fflush(stderr);
      _exit(kExitIo);
    }
    if (!flags.quiet && !flags.json) show_progress(watcher, draw);
  }
  asking.join();
  bar.clear();
  if (!answer.has_value()) return exit_with("backup", answer.error());
  if (const Status status = status_of(*answer); !status.ok()) return exit_with("backup", status);
  const auto report = read_report(answer->body);
  if (!report.has_value()) return exit_with("backup", report.error());
  print_report(flags, *report, "the server's directory", bar.seconds());
  return kExitOk;
}

int run_backup(const BackupFlags& flags) {
  if (flags.dir.empty() && flags.server.url_argument.given() && flags.to.empty()) {
    if (flags.options.keep != 0) {
      return exit_with("backup", invalid_argument("how many backups a server keeps, its setting "
                                                  "AIONBD_BACKUP_KEEP says: leave --keep out"));
    }
    return run_online(flags);
  }
  if (flags.dir.empty() || flags.to.empty()) {
    return exit_with("backup",
                     invalid_argument("give --data-dir and --to, or --url of a running server"));
  }
  StoreProgressBar bar(flags.quiet || flags.json);
  const auto report = backup_store(flags.dir, flags.to, flags.options, bar.callback());
  bar.clear();
  if (!report.has_value()) return exit_with("backup", report.error());
  print_report(flags, *report, flags.to, bar.seconds());
  return kExitOk;
}

struct RestoreFlags {
  std::string from;
  std::string dir;
  uint64_t number = 0;
  bool list = false;
  bool replace = false;
  bool json = false;
  bool quiet = false;
};

int list(const RestoreFlags& flags) {
  const auto backups = list_store_backups(flags.from);
  if (!backups.has_value()) return exit_with("restore", backups.error());
  Value::Array values;
  for (const BackupReport& backup : *backups) {
    if (flags.json) {
      values.push_back(value_of(backup));
    } else {
      fmt::print("backup {}: up to record {}, {} files, {} packed of {}\n", backup.number,
                 backup.last_lsn, with_thousands(backup.files), human_bytes(backup.packed_bytes),
                 human_bytes(backup.raw_bytes));
    }
  }
  if (flags.json) print_json(values);
  return kExitOk;
}

int run_restore(const RestoreFlags& flags) {
  if (flags.list) return list(flags);
  if (flags.dir.empty()) {
    return exit_with("restore", invalid_argument("--data-dir says where to, or give --list"));
  }
  RestoreOptions options;
  if (flags.number != 0) options.number = flags.number;
  options.replace = flags.replace;
  StoreProgressBar bar(flags.quiet || flags.json);
  const auto report = restore_store(flags.from, flags.dir, options, bar.callback());
  bar.clear();
  if (!report.has_value()) return exit_with("restore", report.error());
  if (flags.json) {
    print_json(Value::Object{
        {"number", report->number}, {"bytes", report->bytes}, {"set_aside", report->set_aside}});
    return kExitOk;
  }
  fmt::print("backup {} restored to {}: {} in {:.1f} s, verified\n", report->number, flags.dir,
             human_bytes(report->bytes), bar.seconds());
  if (!report->set_aside.empty()) {
    fmt::print("the store that was there is in {}\n", report->set_aside);
  }
  return kExitOk;
}

}  // namespace

CommandRun declare_backup(Arguments args) {
  auto flags = std::make_shared<BackupFlags>();
  args.option("--data-dir", flags->dir, "Data directory of a stopped server");
  args.option("--to", flags->to, "Directory of backups; made if missing");
  args.option("--zstd-level", flags->options.level, "1 fast .. 19 small")
      .between(1, 19)
      .show_default();
  args.option("--keep", flags->options.keep,
              "Newest backups that stay; the others are removed. All stay if not given")
      .between(uint64_t{1}, uint64_t{UINT32_MAX});
  args.flag("--json", flags->json, "The report as one JSON object");
  args.flag("--quiet", flags->quiet, "No progress");
  flags->server.declare(args);
  args.footer(kBackupExamples);
  return [flags] { return run_backup(*flags); };
}

CommandRun declare_restore(Arguments args) {
  auto flags = std::make_shared<RestoreFlags>();
  args.option("BACKUP", flags->from, "Directory of backups").required();
  args.option("--data-dir", flags->dir, "Data directory to make");
  args.option("--number", flags->number, "Which backup; the newest if not given")
      .between(uint64_t{1}, UINT64_MAX);
  args.flag("--list", flags->list, "List the backups");
  args.flag("--replace", flags->replace, "Set aside the store that is there");
  args.flag("--json", flags->json, "The report as one JSON object");
  args.flag("--quiet", flags->quiet, "No progress");
  args.footer(kRestoreExamples);
  return [flags] { return run_restore(*flags); };
}

}  // namespace aionbd
