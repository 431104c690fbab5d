// `aionbd export`: flags and last words. The work is in exporter.cc.
#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <memory>

#include "cli/command.h"
#include "cli/exporter.h"

namespace aionbd {
namespace {

constexpr const char* kExportExamples =
    R"(Writes {"id":..,"values":[..],"payload":{..}} per line, ids ascending; `aionbd
import` reads it back.
The file gets its name only when it is complete.

Examples:
  aionbd export --collection docs docs.ndjson
  aionbd export --collection docs --zstd docs.ndjson.zst
  aionbd export --collection docs - | head)";

struct ExportFlags {
  ServerFlags server;
  ExportOptions options;
  bool quiet = false;
};

int run(ExportFlags& flags) {
  auto client = flags.server.client_options();
  if (!client.has_value()) return exit_with("export", client.error());
  flags.options.client = *client;
  signal(SIGPIPE, SIG_IGN);  // a reader that leaves becomes an error of the write
  Progress progress(system_clock_source(),
                    flags.quiet ? Progress::Style::kQuiet : Progress::Style::kAuto);
  const auto summary = run_export(posix_file_system(), flags.options, stop_signal(), progress);
  if (!summary.has_value()) {
    progress.clear();
    return exit_with("export", summary.error());
  }
  const double seconds = std::max(summary->seconds, 1e-6);
  fmt::print(stderr, "{} rows in {:.1f} s ({} rows/s, {})\n", with_thousands(summary->rows),
             summary->seconds,
             with_thousands(static_cast<uint64_t>(static_cast<double>(summary->rows) / seconds)),
             human_bytes(summary->bytes));
  return kExitOk;
}

}  // namespace

CommandRun declare_export(Arguments args) {
  auto flags = std::make_shared<ExportFlags>();
  args.option("FILE", flags->options.path, "File to write; - for standard output").required();
  args.option("--collection", flags->options.collection, "Collection to read").required();
  flags->server.declare(args);
  args.flag("--zstd", flags->options.zstd, "Compress with zstd").group("Output");
  args.option("--zstd-level", flags->options.zstd_level, "1 fast .. 19 small")
      .between(1, 19)
      .show_default()
      .group("Output");
  args.option("--page", flags->options.page_rows, "Points per request")
      .between(1U, 65536U)
      .show_default()
      .group("Output");
  args.flag("--quiet", flags->quiet, "No progress").group("Output");
  args.footer(kExportExamples);
  return [flags] { return run(*flags); };
}

}  // namespace aionbd
