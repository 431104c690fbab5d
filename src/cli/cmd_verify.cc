// `aionbd verify`: is everything in a data directory as it was written?
#include <fmt/format.h>

#include <memory>

#include "aionbd/store.h"
#include "cli/command.h"
#include "cli/store_report.h"

namespace aionbd {
namespace {

constexpr const char* kVerifyExamples =
    R"(Reads every byte of a stopped server's data directory and changes nothing. Each line
tells what is wrong, where: "damaged" is something lost or wrong, "note" is
something a start puts right by itself (a torn log tail, leftovers of a crash).

Exit codes: 0 nothing is damaged, 65 something is, 75 a server has the directory
open.

Examples:
  aionbd verify ./data
  aionbd verify ./data --json | jq '.findings[]'
  aionbd verify ./data || aionbd repair ./data --out ./salvaged)";

struct VerifyFlags {
  std::string dir;
  bool json = false;
  bool quiet = false;
};

void print_text(const VerifyFlags& flags, const VerifyReport& report, double seconds) {
  for (const StoreFinding& finding : report.findings) {
    fmt::print("{}\n", finding_line(finding));
  }
  const uint64_t left_out = report.damage_count + report.notes_count - report.findings.size();
  if (left_out > 0) fmt::print("... and {} more\n", with_thousands(left_out));
  fmt::print(
      "{}: {} collections, {} rows ({} live) in {} segments, {} indexes, {} log records in "
      "{} files\n",
      flags.dir, with_thousands(report.collections), with_thousands(report.rows),
      with_thousands(report.rows_live), with_thousands(report.segments),
      with_thousands(report.indexes), with_thousands(report.log_records),
      with_thousands(report.log_files));
  fmt::print(
      "{} files, {} read in {:.1f} s: {}\n", with_thousands(report.files),
      human_bytes(report.bytes), seconds,
      report.clean() ? "nothing is damaged" : with_thousands(report.damage_count) + " damaged");
}

void print_json(const VerifyFlags& flags, const VerifyReport& report) {
  Value::Object out;
  out["directory"] = flags.dir;
  out["clean"] = report.clean();
  out["findings"] = findings_value(report.findings);
  out["damage_count"] = report.damage_count;
  out["notes_count"] = report.notes_count;
  out["files"] = report.files;
  out["bytes"] = report.bytes;
  out["collections"] = report.collections;
  out["segments"] = report.segments;
  out["indexes"] = report.indexes;
  out["rows"] = report.rows;
  out["rows_live"] = report.rows_live;
  out["log_files"] = report.log_files;
  out["log_records"] = report.log_records;
  std::string text;
  append_json_value(out, &text);
  fmt::print("{}\n", text);
}

int run(const VerifyFlags& flags) {
  StoreProgressBar bar(flags.quiet || flags.json);
  const auto report = verify_store(flags.dir, bar.callback());
  bar.clear();
  if (!report.has_value()) return exit_with("verify", report.error());
  if (flags.json) {
    print_json(flags, *report);
  } else {
    print_text(flags, *report, bar.seconds());
  }
  return report->clean() ? kExitOk : kExitDamaged;
}

}  // namespace

CommandRun declare_verify(Arguments args) {
  auto flags = std::make_shared<VerifyFlags>();
  args.option("DIR", flags->dir, "Data directory of a stopped server").required();
  args.flag("--json", flags->json, "The whole report as one JSON object");
  args.flag("--quiet", flags->quiet, "No progress");
  args.footer(kVerifyExamples);
  return [flags] { return run(*flags); };
}

}  // namespace aionbd
