// `aionbd soak`: flags, the line of progress, the tables. The work is in soak.cc.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/rng.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "cli/soak.h"
#include "cli/store_report.h"
#include "io/file_system.h"

namespace aionbd {
namespace {

constexpr const char* kSoakExamples =
    R"(Loads a server with upserts, batches, deletes, payload changes, reads and searches, and
judges every answer: each client owns a range of ids and knows what each must hold; each
row spells its id and version, so that a torn, mixed, lost or deleted row is recognised
in any answer; distances are computed again. At the end everything is read back.

Without --url it starts a server of its own (settings from the environment, as for
`aionbd serve`) in a temporary directory, and can kill it: with --kill-every, SIGKILL
comes in the middle of the load, and after the restart every acknowledged write must be
there, every batch whole or not at all. At the end that server must stop in good order
and leave a directory that `aionbd verify` finds clean.

The report gives latencies per operation, errors, refusals (408, 429, 503 overloaded,
507), and for a server of its own memory, descriptors and disk, with their slopes per
hour once it is warm and the standard error of each. Kills take back what a process
leaks, so run without them, too. Ctrl-C ends the run early, with its report.

Exit codes: 0 all answers right and errors within --max-error-rate; 65 an answer was
wrong or a write lost; 74 too many errors or refusals, or no server. The data of a
failed run is kept, and named.

Examples:
  aionbd soak --duration 30s
  aionbd soak --duration 24h --kill-every 5m --report soak.json
  AIONBD_MEMORY_BUDGET_MB=64 aionbd soak --duration 1h --keys 50000 --max-error-rate 0.01
  aionbd soak --url http://10.0.0.5:8080 --rate 200 --max-error-rate 0.001)";

/// The program that runs, whatever its name.
constexpr const char* kOwnProgram = "/proc/self/exe";
constexpr std::chrono::seconds kLineEvery{5};
constexpr double kMillion = 1e6;

struct SoakFlags {
  ServerFlags server;
  SoakOptions options;
  std::string duration = "60s", kill_every, report_path;
  double error_rate_max = 0;
  bool json = false, quiet = false, keep = false;
};

std::string milliseconds_text(uint64_t us) {
  return fmt::format("{:.2f}", static_cast<double>(us) / 1000);
}

std::string progress_text(const SoakProgress& now) {
  std::string line =
      fmt::format("{}  {} requests  {}/s  worst p99 {} ms  {} errors", human_seconds(now.seconds),
                  with_thousands(now.requests),
                  with_thousands(static_cast<uint64_t>(static_cast<double>(now.requests) /
                                                       std::max(now.seconds, 0.001))),
                  milliseconds_text(now.worst_p99_us), with_thousands(now.errors));
  if (now.refused > 0) line += fmt::format("  {} refused", with_thousands(now.refused));
  if (now.kills > 0) line += fmt::format("  {} kills", now.kills);
  if (now.last.resident_bytes > 0) {
    line += fmt::format("  memory {}  disk {}", human_bytes(now.last.resident_bytes),
                        human_bytes(now.last.disk_bytes));
  }
  return line;
}

/// A line that redraws itself on a terminal, one now and then elsewhere. Thread safety: single
/// owner.
class SoakLine {
 public:
  explicit SoakLine(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) == 1) {}
  void draw(const SoakProgress& now) {
    if (quiet_) return;
    if (terminal_) {
      fmt::print(stderr, "\r{}\x1b[K", progress_text(now));
      std::fflush(stderr);
    } else if (now.seconds - last_ >= static_cast<double>(kLineEvery.count())) {
      last_ = now.seconds;
      fmt::print(stderr, "{}\n", progress_text(now));
    }
  }
  void clear() const {
    if (!quiet_ && terminal_) fmt::print(stderr, "\r\x1b[K");
  }

 private:
  const bool quiet_, terminal_;
  double last_ = 0;
};

void print_figure(const SoakReport& report, const char* name, uint64_t SoakSample::*figure,
                  bool bytes) {
  uint64_t most = 0;
  for (const SoakSample& sample : report.samples) most = std::max(most, sample.*figure);
  const auto shown = [bytes](double value) {
    return bytes ? fmt::format("{:.1f} MB", value / kMillion) : fmt::format("{:.0f}", value);
  };
  std::string line = fmt::format("{:<12} at most {}", name, shown(static_cast<double>(most)));
  if (const auto slope = slope_of(report.samples, figure)) {
    line += fmt::format(", {:+.2f} % an hour once warm (standard error {:.2f}, {} {})",
                        slope->percent_per_hour, slope->error_percent_per_hour, slope->parts,
                        report.kills > 0 ? "lives" : "parts");
  }
  fmt::print("{}\n", line);
}

void print_report(const SoakReport& report) {
  fmt::print("{:<14}{:>10}{:>9}{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "", "answered", "refused",
             "errors", "p50 ms", "p90", "p99", "p99.9", "max");
  for (size_t i = 0; i < kLoadOpsCount; ++i) {
    const SoakOpReport& op = report.ops[i];
    const LatencyHistogram& latency = op.latency;
    fmt::print("{:<14}{:>10}{:>9}{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}\n",
               load_op_name(static_cast<LoadOp>(i)), with_thousands(latency.count()),
               with_thousands(op.refused), with_thousands(op.errors),
               milliseconds_text(latency.quantile_us(0.5)),
               milliseconds_text(latency.quantile_us(0.9)),
               milliseconds_text(latency.quantile_us(0.99)),
               milliseconds_text(latency.quantile_us(0.999)), milliseconds_text(latency.max_us()));
  }
  fmt::print("{} requests in {:.1f} s, {} errors, {} refused; {} hits checked\n",
             with_thousands(report.requests()), report.seconds, with_thousands(report.errors()),
             with_thousands(report.refused()), with_thousands(report.hits_checked));
  if (!report.options.server) {
    fmt::print(
        "{} kills, slowest start {} ms; requests they cut off: {} applied, {} not; all read back "
        "{} "
        "times\n",
        report.kills, report.slowest_start_ms, report.doubts_applied, report.doubts_dropped,
        report.verifications);
    print_figure(report, "memory", &SoakSample::resident_bytes, true);
    print_figure(report, "  anonymous", &SoakSample::anonymous_bytes, true);
    print_figure(report, "  of files", &SoakSample::mapped_bytes, true);
    print_figure(report, "descriptors", &SoakSample::descriptors, false);
    print_figure(report, "disk", &SoakSample::disk_bytes, true);
  }
}

Status write_report(const std::string& path, const std::string& text) {
  ASSIGN_OR_RETURN(auto file, posix_file_system().create(path));
  const Bytes parts[] = {as_bytes_of(text), as_bytes_of("\n")};
  RETURN_IF_ERROR(file->append(parts));
  return file->sync();
}

Status finish_flags(SoakFlags& flags) {
  SoakOptions& options = flags.options;
  ASSIGN_OR_RETURN(options.duration, parse_duration(flags.duration));
  if (!flags.kill_every.empty()) {
    ASSIGN_OR_RETURN(options.kill_every, parse_duration(flags.kill_every));
  }
  if (options.clients * options.keys_each > kLoadIdsMax) {
    return invalid_argument(
        fmt::format("--clients times --keys must be at most {}", with_thousands(kLoadIdsMax)));
  }
  if (flags.server.url_argument.given()) {
    if (options.kill_every.count() > 0) {
      return invalid_argument("--kill-every needs a server of its own: leave --url out");
    }
    ASSIGN_OR_RETURN(options.server, flags.server.client_options());
    return {};
  }
  options.program = kOwnProgram;
  if (!options.dir.empty()) return {};
  std::string dir = (std::filesystem::temp_directory_path() / "aionbd_soak_XXXXXX").string();
  if (mkdtemp(dir.data()) == nullptr) return io_error("cannot make a temporary directory");
  options.dir = dir;
  return {};
}

int exit_code(const SoakFlags& flags, const SoakReport& report) {
  if (!report.violation.empty()) {
    fmt::print(stderr, "aionbd soak: WRONG: {} (seed {})\n", report.violation, report.options.seed);
    return kExitDamaged;
  }
  if (!report.failure.empty()) {
    fmt::print(stderr, "aionbd soak: {}\n", report.failure);
    return kExitIo;
  }
  if (report.error_rate() > flags.error_rate_max) {
    fmt::print(stderr,
               "aionbd soak: {:.4f} % of the requests failed, --max-error-rate is {:.4f} %\n",
               report.error_rate() * 100, flags.error_rate_max * 100);
    return kExitIo;
  }
  return kExitOk;
}

int run(SoakFlags& flags) {
  const bool own_dir = flags.options.dir.empty();
  if (const Status status = finish_flags(flags); !status.ok()) return exit_with("soak", status);
  const SoakOptions& options = flags.options;
  const std::atomic<bool>& stop = stop_signal();
  SoakLine line(flags.quiet);
  const SoakReport report =
      run_soak(options, stop, [&line](const SoakProgress& now) { line.draw(now); });
  line.clear();
  std::string json;
  append_json_value(soak_value(report, flags.error_rate_max), &json);
  if (flags.json) {
    fmt::print("{}\n", json);
  } else {
    print_report(report);
  }
  int code = exit_code(flags, report);
  if (!flags.report_path.empty()) {
    const Status written = write_report(flags.report_path, json);
    if (!written.ok()) code = std::max(code, exit_with("soak", written));
  }
  if (!options.server && own_dir) {
    if (code == kExitOk && !flags.keep) {
      std::error_code ignored;
      std::filesystem::remove_all(options.dir, ignored);
    } else {
      fmt::print(stderr, "aionbd soak: kept {} (data, server.log)\n", options.dir);
    }
  }
  return code;
}

}  // namespace

CommandRun declare_soak(Arguments args) {
  auto flags = std::make_shared<SoakFlags>();
  SoakOptions& options = flags->options;
  options.seed = entropy_seed();
  args.option("--duration", flags->duration, "How long: 30s, 5m, 2h, 3d").show_default();
  args.option("--clients", options.clients, "Requests under way at one time")
      .between(uint64_t{1}, uint64_t{256})
      .show_default();
  args.option("--rate", options.requests_per_second,
              "Requests a second, of all clients together; 0: as fast as it goes")
      .not_negative()
      .show_default();
  args.option("--keys", options.keys_each, "Ids of each client")
      .between(uint64_t{16}, kLoadIdsMax)
      .show_default();
  args.option("--batch", options.batch_max, "Most ids in a batch")
      .between(uint64_t{2}, uint64_t{256})
      .show_default();
  args.option("--dimension", options.dimension, "Of the vectors")
      .between(kLoadDimensionMin, 4096U)
      .show_default();
  args.option("--collection", options.collection, "Made for the run, and dropped at its end")
      .show_default();
  args.option("--seed", options.seed, "Repeats the choices of a run, not its timing");
  args.option("--kill-every", flags->kill_every, "SIGKILL the server so often: 30s, 5m")
      .group("Own server");
  args.option("--dir", options.dir,
              "Where its data and log go, and stay; a temporary directory otherwise")
      .group("Own server");
  args.flag("--keep", flags->keep, "Keep the data, or the collection, after a good run, too");
  args.option("--max-error-rate", flags->error_rate_max,
              "Share of requests that may fail or be refused, outside kills")
      .between(0.0, 1.0)
      .show_default()
      .group("Report");
  args.option("--report", flags->report_path, "Write the report here, as JSON").group("Report");
  args.flag("--json", flags->json, "Print the report as JSON").group("Report");
  args.flag("--quiet", flags->quiet, "No progress").group("Report");
  flags->server.declare(args);
  args.footer(kSoakExamples);
  return [flags] {
    flags->options.keep_collection = flags->keep;
    return run(*flags);
  };
}

}  // namespace aionbd
