// `aionbd import`: flags, the last words, the exit code. The work is in importer.cc.
#include <fmt/format.h>

#include <memory>

#include "cli/command.h"
#include "cli/importer.h"

namespace aionbd {
namespace {

constexpr const char* kImportExamples = R"(Formats:
  ndjson  one {"id":..,"values":[..],"payload":{..}} per line
  npy     NumPy array of two axes (f2, f4, f8, integers)
  fvecs   SIFT, GIST and their kin
  idx     MNIST and its kin
  hdf5    ann-benchmarks data sets
All but hdf5 may be compressed with gzip or zstd. Files of numbers get the ids
START-ID, START-ID + 1, ...

Examples:
  aionbd import --collection docs docs.ndjson
  aionbd import --collection sift --metric l2 sift_base.fvecs
  aionbd import --collection digits train-images-idx3-ubyte.gz --labels train-labels-idx1-ubyte.gz
  aionbd import --collection glove glove-100-angular.hdf5 --dataset train

Interrupted, or the server went away? Run the same line again with --resume.
Exit codes: 0 all rows are in, 65 rows were refused or the file is damaged, 64 bad argument,
74 the server stayed away.)";

struct ImportFlags {
  ServerFlags server;
  ImportOptions options;
  std::string format, metric, id_type;
  uint64_t limit = 0;
  bool quiet = false;
};

void declare_flags(Arguments args, ImportFlags& flags) {
  ImportOptions& options = flags.options;
  args.option("FILE", options.path, "File to read").required();
  args.option("--collection", options.collection, "Collection to fill").required();
  flags.server.declare(args);

  args.option("--format", flags.format, "Format of the file; by its name or first bytes otherwise")
      .one_of({"ndjson", "npy", "fvecs", "idx", "hdf5"})
      .group("Input");
  args.option("--id-field", options.id_field, "Key of the id in NDJSON rows")
      .show_default()
      .group("Input");
  args.option("--start-id", options.start_id, "Id of the first row of a file of numbers")
      .show_default()
      .group("Input");
  args.option("--labels", options.labels_path,
              "IDX file with a label per row, stored as payload {\"label\": n}")
      .group("Input");
  args.option("--dataset", options.dataset, "Data set of an HDF5 file")
      .show_default()
      .group("Input");
  args.option("--limit", flags.limit, "Only the first N rows of the file (0 = all)")
      .show_default()
      .group("Input");

  args.flag("--create,!--no-create", options.create,
            "Make the collection if it is missing, with the dimension of the first row (default)")
      .group("Collection");
  args.option("--metric", flags.metric, "Metric of a collection made here")
      .one_of({"dot", "l2", "cosine"})
      .group("Collection");
  args.option("--id-type", flags.id_type,
              "Kind of ids of a collection made here; by the first row otherwise")
      .one_of({"u64", "string"})
      .group("Collection");

  args.option("--batch", options.batch_rows, "Points per request; lowered to what the server takes")
      .between(size_t{1}, size_t{65536})
      .show_default()
      .group("Speed");
  args.option("--connections", options.connections, "Requests in flight")
      .between(size_t{1}, size_t{64})
      .show_default()
      .group("Speed");

  args.flag("--resume", options.resume, "Go on where the last run of this import stopped")
      .group("Progress");
  args.option("--state", options.state_path,
              "File that remembers how far it came (FILE.import-state)")
      .group("Progress");
  args.option("--refused", options.refused_path,
              "File that gets the rows refused, with the reason (FILE.refused.ndjson)")
      .group("Progress");
  args.flag("--quiet", flags.quiet, "No progress").group("Progress");
  args.footer(kImportExamples);
}

Status finish_flags(ImportFlags& flags) {
  ImportOptions& options = flags.options;
  ASSIGN_OR_RETURN(options.client, flags.server.client_options());
  for (size_t i = 0; i < std::size(kInputFormatNames); ++i) {
    if (flags.format == kInputFormatNames[i]) options.format = static_cast<InputFormat>(i);
  }
  if (flags.metric == "dot") options.metric = Metric::kDot;
  if (flags.metric == "l2") options.metric = Metric::kL2;
  if (flags.metric == "cosine") options.metric = Metric::kCosine;
  if (flags.id_type == "u64") options.id_type = IdType::kU64;
  if (flags.id_type == "string") options.id_type = IdType::kString;
  if (flags.limit > 0) options.limit = flags.limit;
  return {};
}

void print_summary(const ImportSummary& summary) {
  const double seconds = std::max(summary.seconds, 1e-6);
  fmt::print(stderr, "{} rows in {:.1f} s ({} rows/s, {}): {} new, {} replaced",
             with_thousands(summary.rows), summary.seconds,
             with_thousands(static_cast<uint64_t>(static_cast<double>(summary.rows) / seconds)),
             human_bytes(summary.bytes), with_thousands(summary.created),
             with_thousands(summary.updated));
  if (summary.rows_skipped > 0) {
    fmt::print(stderr, "; {} done before", with_thousands(summary.rows_skipped));
  }
  if (summary.retries > 0) fmt::print(stderr, "; {} requests repeated", summary.retries);
  fmt::print(stderr, "\n");
  if (summary.refused > 0) {
    fmt::print(stderr, "{} rows refused, see {}\n", with_thousands(summary.refused),
               summary.refused_path);
  }
}

int run(ImportFlags& flags) {
  const Status usable = finish_flags(flags);
  if (!usable.ok()) return exit_with("import", usable);
  Progress progress(system_clock_source(),
                    flags.quiet ? Progress::Style::kQuiet : Progress::Style::kAuto);
  const auto summary = run_import(posix_file_system(), flags.options, stop_signal(), progress);
  if (!summary.has_value()) {
    const int code = exit_with("import", summary.error());
    if (code == kExitIo) fmt::print(stderr, "Go on later with the same line and --resume.\n");
    return code;
  }
  print_summary(*summary);
  if (summary->stopped) {
    fmt::print(stderr, "Stopped. Go on with the same line and --resume (state in {}).\n",
               summary->state_path);
    return kExitIo;
  }
  return summary->refused > 0 ? kExitDamaged : kExitOk;
}

}  // namespace

CommandRun declare_import(Arguments args) {
  auto flags = std::make_shared<ImportFlags>();
  declare_flags(args, *flags);
  return [flags] { return run(*flags); };
}

}  // namespace aionbd
