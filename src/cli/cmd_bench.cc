// `aionbd bench`: flags and tables. The work is in ann_bench.cc.
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstdio>
#include <memory>

#include "cli/ann_bench.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "cli/row_encoder.h"

namespace aionbd {
namespace {

constexpr const char* kBenchExamples =
    R"(The file has the layout of ann-benchmarks: data sets train, test and neighbors.
`./dev data` makes two such files. Everything runs in this process, without HTTP.

Recall counts an answer as right when its true distance is at most that of the k-th true
neighbour, plus 0.1 % for rounding. Answers the file does not hold (a filter, --rows,
--metric) are found by brute force first.

Columns:
  recall    mean over the queries; p5: one query in twenty is worse
  said      the recall that the engine states of itself (recall_at_k)
  qps       queries a second, one at a time; p50 and p99 in microseconds
  batch     queries a second in batches of --batch
  compared  rows compared for one query
  MB        resident memory, and the part of it that no file backs

Examples:
  aionbd bench ann --file fashion-mnist-784-euclidean.hdf5 --mode exact
  aionbd bench ann --file F.hdf5 --mode graph --sweep 16,32,64,128 --pin 1
  aionbd bench ann --file F.hdf5 --mode auto --sweep 0.9,0.95,0.99 --json
  aionbd bench ann --file F.hdf5 --mode auto --selectivity 0.01
  aionbd bench ann --file F.hdf5 --data-dir kept   (the next run does not load again))";

constexpr SearchMode kModes[] = {SearchMode::kExact, SearchMode::kIvf, SearchMode::kGraph,
                                 SearchMode::kAuto};
constexpr Metric kMetrics[] = {Metric::kL2, Metric::kCosine, Metric::kDot};

struct AnnFlags {
  AnnOptions options;
  std::string mode = "auto", metric, sweep, filter;
  uint64_t rows = 0, queries = 0;
  std::vector<AnnSetting> settings;
  double target_recall = 0, selectivity = 0;
  uint32_t param = 0, pin = 0;
  Argument target_recall_argument;
  Argument selectivity_argument;
  Argument param_argument;
  Argument pin_argument;
  bool json = false, quiet = false;
};

void declare_question(Arguments args, AnnFlags& flags) {
  args.option("--file", flags.options.path, "HDF5 file in the layout of ann-benchmarks").required();
  args.option("--mode", flags.mode, "exact, ivf, graph or auto")
      .one_of({"exact", "ivf", "graph", "auto"})
      .show_default();
  args.option("--metric", flags.metric, "l2, cosine or dot; the file's otherwise")
      .one_of({"l2", "cosine", "dot"});
  args.option("-k,--k", flags.options.k, "Neighbours asked for").between(1U, 1000U).show_default();
  args.option("--rows", flags.rows, "Only the first N rows (0 = all)").show_default();
  args.option("--queries", flags.queries, "Only the first N queries (0 = all)").show_default();

  flags.param_argument =
      args.option("--param", flags.param,
                  "The index's own knob: candidates kept (graph), lists visited (ivf)")
          .positive()
          .group("Settings");
  flags.target_recall_argument =
      args.option("--target-recall", flags.target_recall, "Recall to aim at")
          .between(0.0, 1.0)
          .group("Settings");
  args.option("--sweep", flags.sweep,
              "One line for each of A,B,..: target recalls if none is over 1, else values of "
              "--param")
      .excludes(flags.param_argument)
      .excludes(flags.target_recall_argument)
      .group("Settings");

  flags.selectivity_argument =
      args.option("--selectivity", flags.selectivity,
                  "Give each row {\"r\": 0..999999} and search with a filter on it that lets "
                  "this share of the rows through")
          .between(0.0, 1.0)
          .group("Filter");
  args.option("--label-from", flags.options.labels,
              "Data set with one number per row, stored as {\"label\": n}")
      .group("Filter");
  args.option("--filter", flags.filter, "label=N: search among the rows with that label")
      .excludes(flags.selectivity_argument)
      .group("Filter");
}

void declare_procedure(Arguments args, AnnFlags& flags) {
  AnnOptions& options = flags.options;
  args.option("--repeat", options.repeats, "Repeats; the median counts")
      .between(1U, 1000U)
      .show_default()
      .group("Measuring");
  args.option("--seconds", options.seconds, "Least length of a repeat")
      .between(0.0, 3600.0)
      .show_default()
      .group("Measuring");
  args.option("--batch", options.batch, "Queries of one batch (0 leaves batches out)")
      .between(0U, 65536U)
      .show_default()
      .group("Measuring");
  args.option("--threads", options.threads, "Threads one search may use (0 = one per core)")
      .between(0U, 1024U)
      .show_default()
      .group("Measuring");
  flags.pin_argument = args.option("--pin", flags.pin, "CPU that searches stay on")
                           .between(0U, 1023U)
                           .group("Measuring");
  args.option("--data-dir", options.data_dir,
              "Keep the loaded collection here and use it again; a temporary directory "
              "otherwise")
      .group("Measuring");
  args.flag("--json", flags.json, "One JSON object a line: first what was loaded, then results")
      .group("Output");
  args.flag("--quiet", flags.quiet, "No progress").group("Output");
}

/// "0.9,0.95" or "16,32": all targets, or all values of --param.
Result<std::vector<AnnSetting>> parse_sweep(std::string_view text) {
  std::vector<double> values;
  bool targets = true;
  while (true) {
    const size_t comma = std::min(text.find(','), text.size());
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + comma, value);
    if (error != std::errc() || end != text.data() + comma || !(value > 0) || value > UINT32_MAX) {
      return invalid_argument("--sweep: '" + std::string(text.substr(0, comma)) +
                              "' is not a number over 0");
    }
    values.push_back(value);
    targets = targets && value <= 1;
    if (comma == text.size()) break;
    text.remove_prefix(comma + 1);
  }
  std::vector<AnnSetting> settings(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (targets) {
      settings[i].target_recall = values[i];
    } else if (std::floor(values[i]) != values[i]) {
      return invalid_argument(
          "--sweep: target recalls (at most 1) and values of --param (whole "
          "numbers) cannot be mixed");
    } else {
      settings[i].param = static_cast<uint32_t>(values[i]);
    }
  }
  return settings;
}

Status parse_filter(std::string_view text, AnnOptions* options) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos) {
    return invalid_argument("--filter: '" + std::string(text) + "' is not FIELD=VALUE");
  }
  const std::string_view field = text.substr(0, equals);
  if (field != "label" || options->labels.empty()) {
    return invalid_argument("--filter: the rows have no field '" + std::string(field) +
                            "'; --label-from DATASET gives them 'label'");
  }
  int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + equals + 1, end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end) {
    return invalid_argument("--filter: label: '" + std::string(text.substr(equals + 1)) +
                            "' is not a whole number");
  }
  options->label_wanted = value;
  return {};
}

Status finish_flags(AnnFlags& flags) {
  AnnOptions& options = flags.options;
  for (const SearchMode mode : kModes) {
    if (flags.mode == mode_word(mode)) options.mode = mode;
  }
  for (const Metric metric : kMetrics) {
    if (flags.metric == metric_word(metric)) options.metric = metric;
  }
  if (flags.rows > 0) options.rows_max = flags.rows;
  if (flags.queries > 0) options.queries_max = flags.queries;
  if (flags.pin_argument.given()) options.pin = flags.pin;
  if (flags.selectivity_argument.given()) options.selectivity = flags.selectivity;
  if (!flags.filter.empty()) RETURN_IF_ERROR(parse_filter(flags.filter, &options));
  if (!flags.sweep.empty()) {
    ASSIGN_OR_RETURN(flags.settings, parse_sweep(flags.sweep));
    return {};
  }
  AnnSetting setting;
  if (flags.param_argument.given()) setting.param = flags.param;
  if (flags.target_recall_argument.given()) setting.target_recall = flags.target_recall;
  flags.settings.push_back(setting);
  return {};
}

// ---- Printing ----------------------------------------------------------------------------------

double megabytes(uint64_t bytes) {
  return static_cast<double>(bytes) / 1e6;
}

std::string json_text(std::string_view text) {
  std::string out;
  append_json_string(text, &out);
  return out;
}

void print_setup(const AnnOptions& options, const AnnSetup& s) {
  fmt::print("machine   {}\n", machine_line());
  fmt::print("file      {}: {} x {}, {}, {} queries, k = {}\n", options.path,
             with_thousands(s.rows), s.dimension, metric_word(s.metric), with_thousands(s.queries),
             options.k);
  if (s.rows_matching != s.rows) {
    fmt::print("filter    lets {} rows through\n", with_thousands(s.rows_matching));
  }
  fmt::print("truth     {}\n", s.truth_computed ? "found by brute force" : "the file's");
  fmt::print("loading   {}, then {:.1f} s to optimize\n",
             s.reused ? "not needed: it was there" : fmt::format("{:.1f} s", s.load_seconds),
             s.optimize_seconds);
  fmt::print("stored    {:.1f} MB of vectors; {} segments, {:.1f} MB on disk, {:.1f} MB in memory",
             megabytes(s.vector_bytes), s.segments, megabytes(s.disk_bytes),
             megabytes(s.memory_bytes));
  fmt::print(", {:.1f} MB of indexes", megabytes(s.index_bytes));
  fmt::print("\n\n{:<16} {:<11} {:>7} {:>6} {:>6} {:>9} {:>9} {:>9} {:>9} {:>10} {:>14}\n",
             "setting", "ran", "recall", "p5", "said", "qps", "p50 us", "p99 us", "batch",
             "compared", "MB");
}

std::string setting_text(const AnnSetting& setting) {
  if (setting.param) return fmt::format("param {}", *setting.param);
  if (setting.target_recall) return fmt::format("recall {}", *setting.target_recall);
  return "-";
}

void print_row(const AnnRow& row) {
  fmt::print(
      "{:<16} {:<11} {:>7.4f} {:>6.2f} {:>6} {:>9.1f} {:>9.1f} {:>9.1f} {:>9} {:>10.0f} {:>14}\n",
      setting_text(row.setting), row.mode, row.recall, row.recall_p5,
      row.recall_promised ? fmt::format("{:.3f}", *row.recall_promised) : "-", row.qps, row.p50_us,
      row.p99_us, row.batch_qps ? fmt::format("{:.1f}", *row.batch_qps) : "-", row.candidates,
      fmt::format("{:.0f} ({:.0f})", megabytes(row.resident_bytes),
                  megabytes(row.anonymous_bytes)));
}

void print_setup_json(const AnnOptions& options, const AnnSetup& s) {
  fmt::print(
      "{{\"kind\":\"setup\",\"machine\":{},\"file\":{},\"rows\":{},\"dimension\":{},"
      "\"metric\":\"{}\",\"queries\":{},\"k\":{},\"threads\":{},\"rows_matching\":{},"
      "\"truth_computed\":{},\"reused\":{},\"load_seconds\":{:.3f},"
      "\"optimize_seconds\":{:.3f},\"segments\":{},\"vector_bytes\":{},\"disk_bytes\":{},"
      "\"memory_bytes\":{}",
      json_text(machine_line()), json_text(options.path), s.rows, s.dimension,
      metric_word(s.metric), s.queries, options.k, options.threads, s.rows_matching,
      s.truth_computed, s.reused, s.load_seconds, s.optimize_seconds, s.segments, s.vector_bytes,
      s.disk_bytes, s.memory_bytes);
  fmt::print(",\"index_bytes\":{}", s.index_bytes);
  fmt::print("}}\n");
}

void print_row_json(const AnnRow& row) {
  fmt::print("{{\"kind\":\"result\",\"setting\":{},", json_text(setting_text(row.setting)));
  if (row.setting.param) fmt::print("\"param\":{},", *row.setting.param);
  if (row.setting.target_recall) fmt::print("\"target_recall\":{},", *row.setting.target_recall);
  if (row.recall_promised) fmt::print("\"recall_promised\":{:.5f},", *row.recall_promised);
  if (row.batch_qps) fmt::print("\"batch_qps\":{:.2f},", *row.batch_qps);
  fmt::print(
      "\"mode\":{},\"recall\":{:.5f},\"recall_p5\":{:.3f},\"qps\":{:.2f},\"p50_us\":{:.2f},"
      "\"p99_us\":{:.2f},\"candidates\":{:.1f},\"resident_bytes\":{},"
      "\"anonymous_bytes\":{}}}\n",
      json_text(row.mode), row.recall, row.recall_p5, row.qps, row.p50_us, row.p99_us,
      row.candidates, row.resident_bytes, row.anonymous_bytes);
}

/// One line per step, and for loading the usual progress.
AnnBench::Report reporter(Progress& progress, bool quiet) {
  auto last = std::make_shared<std::string>();
  return [&progress, quiet, last](std::string_view step, const ProgressState& state) {
    if (*last != step) {
      progress.clear();
      *last = step;
      if (!quiet) fmt::print(stderr, "{} ...\n", step);
    }
    if (state.share) progress.update(state);
  };
}

int run(AnnFlags& flags) {
  const Status usable = finish_flags(flags);
  if (!usable.ok()) return exit_with("bench ann", usable);
  Progress progress(system_clock_source(),
                    flags.quiet ? Progress::Style::kQuiet : Progress::Style::kAuto);
  const auto bench = AnnBench::open(flags.options, stop_signal(), reporter(progress, flags.quiet));
  progress.clear();
  if (!bench.has_value()) return exit_with("bench ann", bench.error());
  const AnnSetup& setup = (*bench)->setup();
  flags.json ? print_setup_json(flags.options, setup) : print_setup(flags.options, setup);
  std::fflush(stdout);
  for (const AnnSetting& setting : flags.settings) {
    const auto row = (*bench)->measure(setting);
    if (!row.has_value()) return exit_with("bench ann", row.error());
    flags.json ? print_row_json(*row) : print_row(*row);
    std::fflush(stdout);
  }
  return kExitOk;
}

}  // namespace

CommandRun declare_bench(Arguments args) {
  auto flags = std::make_shared<AnnFlags>();
  args.require_command();
  Arguments ann = args.command("ann", "Nearest neighbours of a file of queries");
  declare_question(ann, *flags);
  declare_procedure(ann, *flags);
  ann.footer(kBenchExamples);
  return [flags] { return run(*flags); };
}

}  // namespace aionbd
