// `aionbd backup` and `aionbd restore`: a data directory as a backup, and back.
#include <fmt/format.h>

#include <memory>

#include "aionbd/store.h"
#include "cli/command.h"
#include "cli/store_report.h"

namespace aionbd {
namespace {

constexpr const char* kBackupExamples =
    R"(Adds a backup of a stopped server's data directory to the backups in another
directory. Segment files never change, so each is stored once, whichever backups
need it: the second backup of a large store is small. Everything is packed with zstd
and carries checksums; a damaged store is not backed up (65). A backup that was cut
short leaves the earlier ones as they were.

Examples:
  aionbd backup --data-dir ./data --to /backups/aionbd
  aionbd restore /backups/aionbd --list
  aionbd restore /backups/aionbd --data-dir ./data)";

constexpr const char* kRestoreExamples =
    R"(Unpacks a backup beside the data directory, verifies every byte of it, and only then
puts it in its place, in one step. With --replace the store that was there is set
aside, not removed.

Exit codes: 65 the backup is damaged (nothing was changed), 75 a server has the
directory open.

Examples:
  aionbd restore /backups/aionbd --data-dir ./data
  aionbd restore /backups/aionbd --number 3 --data-dir ./data --replace)";

struct BackupFlags {
  std::string dir;
  std::string to;
  int level = kBackupLevelDefault;
  bool json = false;
  bool quiet = false;
};

Value value_of(const BackupReport& report) {
  Value::Object out;
  out["number"] = report.number;
  out["last_lsn"] = report.last_lsn;
  out["files"] = report.files;
  out["files_shared"] = report.files_shared;
  out["raw_bytes"] = report.raw_bytes;
  out["packed_bytes"] = report.packed_bytes;
  out["written_bytes"] = report.written_bytes;
  return out;
}

void print_json(const Value& value) {
  std::string text;
  append_json_value(value, &text);
  fmt::print("{}\n", text);
}

int run_backup(const BackupFlags& flags) {
  StoreProgressBar bar(flags.quiet || flags.json);
  const auto report = backup_store(flags.dir, flags.to, flags.level, bar.callback());
  bar.clear();
  if (!report.has_value()) return exit_with("backup", report.error());
  if (flags.json) {
    print_json(value_of(*report));
    return kExitOk;
  }
  fmt::print("backup {} in {}: {} files, {} of them stored before; {} of {} written in {:.1f} s\n",
             report->number, flags.to, with_thousands(report->files),
             with_thousands(report->files_shared), human_bytes(report->written_bytes),
             human_bytes(report->raw_bytes), bar.seconds());
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

CommandRun declare_backup(CLI::App& app) {
  auto flags = std::make_shared<BackupFlags>();
  app.add_option("--data-dir", flags->dir, "Data directory of a stopped server")->required();
  app.add_option("--to", flags->to, "Directory of backups; made if missing")->required();
  app.add_option("--zstd-level", flags->level, "1 fast .. 19 small")
      ->check(CLI::Range(1, 19))
      ->capture_default_str();
  app.add_flag("--json", flags->json, "The report as one JSON object");
  app.add_flag("--quiet", flags->quiet, "No progress");
  app.footer(kBackupExamples);
  return [flags] { return run_backup(*flags); };
}

CommandRun declare_restore(CLI::App& app) {
  auto flags = std::make_shared<RestoreFlags>();
  app.add_option("BACKUP", flags->from, "Directory of backups")->required();
  app.add_option("--data-dir", flags->dir, "Data directory to make");
  app.add_option("--number", flags->number, "Which backup; the newest if not given")
      ->check(CLI::Range(uint64_t{1}, UINT64_MAX));
  app.add_flag("--list", flags->list, "List the backups");
  app.add_flag("--replace", flags->replace, "Set aside the store that is there");
  app.add_flag("--json", flags->json, "The report as one JSON object");
  app.add_flag("--quiet", flags->quiet, "No progress");
  app.footer(kRestoreExamples);
  return [flags] { return run_restore(*flags); };
}

}  // namespace aionbd
