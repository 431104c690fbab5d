// `aionbd repair`: what can be saved of a damaged data directory, as a new one.
#include <fmt/format.h>

#include <memory>

#include "aionbd/store.h"
#include "cli/command.h"
#include "cli/store_report.h"

namespace aionbd {
namespace {

constexpr const char* kRepairExamples =
    R"(Writes a new data directory of everything whose checksums hold: rows one by one, log
records also behind a damaged place. The damaged directory is only read. Each line
tells what is lost, and where. Look at `aionbd verify` first; a damaged index alone
needs no repair, the server builds it again.

Exit codes: 0 nothing is lost, 65 something is (the copy is there all the same), 75
a server has the directory open.

Examples:
  aionbd repair ./data --out ./salvaged
  aionbd verify ./salvaged && mv ./data ./damaged && mv ./salvaged ./data)";

struct RepairFlags {
  std::string dir;
  std::string out;
  bool json = false;
  bool quiet = false;
};

void print_text(const RepairFlags& flags, const RepairReport& report, double seconds) {
  for (const StoreFinding& finding : report.findings) fmt::print("{}\n", finding_line(finding));
  const uint64_t left_out = report.losses_count + report.notes_count - report.findings.size();
  if (left_out > 0) fmt::print("... and {} more\n", with_thousands(left_out));
  for (const RepairedCollection& collection : report.collections) {
    fmt::print("collection {}: {} rows kept, {} lost\n", collection.name,
               with_thousands(collection.rows_kept), with_thousands(collection.rows_lost));
  }
  fmt::print("{} written in {:.1f} s: {}\n", flags.out, seconds,
             report.complete() ? "nothing is lost" : "something is lost, see above");
}

void print_json(const RepairFlags& flags, const RepairReport& report) {
  Value::Array collections;
  for (const RepairedCollection& collection : report.collections) {
    collections.push_back(Value::Object{{"name", collection.name},
                                        {"rows_kept", collection.rows_kept},
                                        {"rows_lost", collection.rows_lost}});
  }
  Value::Object out;
  out["directory"] = flags.dir;
  out["out"] = flags.out;
  out["complete"] = report.complete();
  out["collections"] = std::move(collections);
  out["findings"] = findings_value(report.findings);
  out["losses_count"] = report.losses_count;
  out["notes_count"] = report.notes_count;
  out["rows_lost"] = report.rows_lost;
  out["segments_lost"] = report.segments_lost;
  out["log_records_kept"] = report.log_records_kept;
  out["log_bytes_lost"] = report.log_bytes_lost;
  std::string text;
  append_json_value(out, &text);
  fmt::print("{}\n", text);
}

int run(const RepairFlags& flags) {
  StoreProgressBar bar(flags.quiet || flags.json);
  const auto report = repair_store(flags.dir, flags.out, bar.callback());
  bar.clear();
  if (!report.has_value()) return exit_with("repair", report.error());
  if (flags.json) {
    print_json(flags, *report);
  } else {
    print_text(flags, *report, bar.seconds());
  }
  return report->complete() ? kExitOk : kExitDamaged;
}

}  // namespace

CommandRun declare_repair(Arguments args) {
  auto flags = std::make_shared<RepairFlags>();
  args.option("DIR", flags->dir, "Data directory of a stopped server").required();
  args.option("--out", flags->out, "New directory; must not exist").required();
  args.flag("--json", flags->json, "The whole report as one JSON object");
  args.flag("--quiet", flags->quiet, "No progress");
  args.footer(kRepairExamples);
  return [flags] { return run(*flags); };
}

}  // namespace aionbd
