// See soak.h. A run is a row of lives of the server: clients load it until it is killed or the time
// is over; then all is read back and held against what they know.
#include "cli/soak.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cmath>
#include <iterator>
#include <map>
#include <memory>
#include <thread>
#include <utility>

#include "aionbd/store.h"
#include "base/mutex.h"
#include "cli/server_process.h"
#include "io/file_system.h"

namespace aionbd {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kLook{100};
/// Samples of a run; more would say nothing more.
constexpr int64_t kSamplesMax = 2000;
constexpr milliseconds kSampleEveryMin{1000};
/// A start is warm after this, or a fifth of the run, or a third of the time between two kills. The
/// heap keeps the most that each of its arenas ever held (prepare_process in cmd_serve.cc), which
/// takes some 100,000 requests to find: 5 minutes at 400 a second.
constexpr milliseconds kWarmUpMax{900000};
/// Parts of a run that a slope is a line through; fewer say nothing about its error.
constexpr size_t kSlopePartsMin = 4;
constexpr size_t kSlopePartsOfOneLife = 10;
constexpr std::chrono::seconds kReadyMax{30};
constexpr std::chrono::seconds kStopMax{10};
/// How long a client waits after a request that got no answer.
constexpr milliseconds kPauseAfterError{200};

/// In percent: writes of all kinds, reads, searches.
constexpr std::array<uint32_t, kLoadOpsCount> kMix = {25, 10, 10, 4, 6, 15, 30};

double seconds_between(steady_clock::time_point from, steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

/// What one client counts; read while it counts.
/// Thread safety: safe.
class Tally {
 public:
  void count(const LoadStep& step, bool killed) {
    MutexLock lock(mutex_);
    SoakOpReport& op = ops_[static_cast<size_t>(step.op)];
    switch (step.outcome) {
      case LoadStep::Outcome::kDone: op.latency.add(step.us); break;
      case LoadStep::Outcome::kRefused: ++op.refused; break;
      case LoadStep::Outcome::kError:
      case LoadStep::Outcome::kNoAnswer: op.errors += killed ? 0 : 1; break;
      case LoadStep::Outcome::kWrong: break;
    }
  }
  std::array<SoakOpReport, kLoadOpsCount> ops() const {
    MutexLock lock(mutex_);
    return ops_;
  }

 private:
  mutable Mutex mutex_;
  std::array<SoakOpReport, kLoadOpsCount> ops_ GUARDED_BY(mutex_);
};

/// Thread safety: single owner, but for what says otherwise.
class Soak {
 public:
  Soak(const SoakOptions& options, const std::atomic<bool>& stop,
       const std::function<void(const SoakProgress&)>& draw)
      : stop_(stop), draw_(draw), board_(options.clients * options.keys_each) {
    report_.options = options;
    load_.collection = options.collection;
    load_.dimension = options.dimension;
    load_.keys_each = options.keys_each;
    load_.batch_max = options.batch_max;
    load_.weights = kMix;
  }

  SoakReport run() {
    start_ = steady_clock::now();
    const Status prepared = prepare();
    if (prepared.ok()) {
      live();
      finish();
    } else {
      report_.failure = prepared.message();
    }
    if (server_) server_->kill_now();
    collect();
    return std::move(report_);
  }

 private:
  const SoakOptions& options() const { return report_.options; }

  Status prepare() {
    if (options().server) {
      connection_ = *options().server;
    } else {
      ASSIGN_OR_RETURN(const uint16_t port, free_loopback_port());
      RETURN_IF_ERROR(posix_file_system().make_dirs(options().dir));
      server_ = std::make_unique<ServerProcess>(options().program, options().dir, port);
      connection_.url.port = std::to_string(port);
      connection_.timeout = std::chrono::seconds(30);
      connection_.retry_for = std::chrono::seconds(5);
      RETURN_IF_ERROR(start_server());
    }
    HttpClient client(connection_);
    const Status made = create_load_collection(client, load_, options().metric);
    if (made.code() == Code::kAlreadyExists) {
      return already_exists("collection '" + load_.collection +
                            "' is there already; --collection names another");
    }
    RETURN_IF_ERROR(made);
    for (uint64_t i = 0; i < options().clients; ++i) {
      clients_.push_back(
          std::make_unique<LoadClient>(load_, i, options().seed, &board_, connection_));
      tallies_.push_back(std::make_unique<Tally>());
    }
    return {};
  }

  Status start_server() {
    const auto begin = steady_clock::now();
    RETURN_IF_ERROR(server_->start());
    HttpClient client(connection_);
    while (true) {
      const auto answer = client.request("GET", "/ready");
      const double took = seconds_between(begin, steady_clock::now());
      if (answer.has_value() && answer->status == 200) {
        report_.slowest_start_ms =
            std::max(report_.slowest_start_ms, static_cast<uint64_t>(took * 1000));
        server_started_ = steady_clock::now();
        return {};
      }
      const std::string ended = server_->end_if_any();
      if (!ended.empty()) return internal_error("the server does not start: " + ended);
      if (took > static_cast<double>(kReadyMax.count())) {
        return unavailable(fmt::format("the server is not ready after {} s", kReadyMax.count()));
      }
      std::this_thread::sleep_for(milliseconds(5));
    }
  }

  bool time_is_over() const {
    return steady_clock::now() - start_ >= options().duration || stop_.load();
  }

  /// Load, kill, restart, verify, until the end.
  void live() {
    while (report_.violation.empty() && report_.failure.empty()) {
      const bool kill = load_until_end_or_kill();
      if (!kill || !report_.violation.empty() || !report_.failure.empty()) return;
      const Status started = start_server();
      if (!started.ok()) {
        report_.violation = "after a kill: " + started.message();
        return;
      }
      verify("after a kill");
    }
  }

  /// True when it ended with a kill.
  bool load_until_end_or_kill() {
    life_over_.store(false);
    killed_.store(false);
    std::vector<std::thread> threads;
    for (uint64_t i = 0; i < options().clients; ++i) {
      threads.emplace_back([this, i] { drive(i); });
    }
    const bool kills = server_ != nullptr && options().kill_every.count() > 0;
    const auto kill_at = steady_clock::now() + options().kill_every;
    bool kill = false;
    while (!kill && !time_is_over() && !wrong_.load()) {
      std::this_thread::sleep_for(kLook);
      sample_if_due();
      draw_progress();
      kill = kills && steady_clock::now() >= kill_at;
      if (server_) {
        const std::string ended = server_->end_if_any();
        if (!ended.empty()) {
          report_.violation = "the server ended by itself: " + ended;
          break;
        }
      }
    }
    if (kill) {
      killed_.store(true);
      server_->kill_now();
      ++report_.kills;
    }
    life_over_.store(true);
    for (std::thread& thread : threads) thread.join();
    MutexLock lock(problem_mutex_);
    if (report_.violation.empty()) report_.violation = problem_;
    return kill;
  }

  /// One client's thread.
  void drive(uint64_t index) {
    LoadClient& client = *clients_[index];
    Tally& tally = *tallies_[index];
    const double rate = options().requests_per_second / static_cast<double>(options().clients);
    auto next = steady_clock::now();
    while (!life_over_.load() && !wrong_.load()) {
      if (client.in_doubt()) {
        if (server_ != nullptr && killed_.load()) return;
        std::this_thread::sleep_for(kPauseAfterError);
        note_problem(client.settle(), killed_.load());
        continue;
      }
      const LoadStep step = client.step();
      const bool killed = killed_.load();
      tally.count(step, killed);
      if (step.outcome == LoadStep::Outcome::kWrong)
        note_problem(internal_error(step.problem), false);
      if (step.outcome == LoadStep::Outcome::kNoAnswer && !killed) {
        std::this_thread::sleep_for(kPauseAfterError);
      }
      if (rate <= 0) continue;
      next += std::chrono::duration_cast<steady_clock::duration>(
          std::chrono::duration<double>(1 / rate));
      while (!life_over_.load() && steady_clock::now() < next) {
        std::this_thread::sleep_for(
            std::min<steady_clock::duration>(next - steady_clock::now(), kLook));
      }
    }
  }

  /// Any thread. A missing answer is counted where it is asked for.
  void note_problem(const Status& status, bool killed) {
    if (status.ok() || status.code() == Code::kUnavailable || killed) return;
    MutexLock lock(problem_mutex_);
    if (problem_.empty()) problem_ = status.message();
    wrong_.store(true);
  }

  void verify(std::string_view when) {
    for (const auto& client : clients_) client->disconnect();
    HttpClient client(connection_);
    const Status right = verify_load(client, load_, clients_);
    ++report_.verifications;
    if (right.ok()) return;
    const std::string message = fmt::format("{}: {}", when, right.message());
    (right.code() == Code::kInternal ? report_.violation : report_.failure) = message;
  }

  /// Everything once more, then an orderly end of our server and a look at every byte it leaves.
  void finish() {
    if (report_.violation.empty() && report_.failure.empty()) {
      verify("at the end");
      sample();
    }
    if (!server_) {
      if (!options().keep_collection) {
        HttpClient client(connection_);
        static_cast<void>(client.call("DELETE", "/collections/" + load_.collection));
      }
      return;
    }
    if (!report_.violation.empty() || !report_.failure.empty()) return;
    const int code = server_->terminate(kStopMax);
    if (code != 0) {
      report_.violation = fmt::format("SIGTERM ended the server with {} (-1: not within {} s)",
                                      code, kStopMax.count());
      return;
    }
    const auto whole = verify_store(server_->data_dir());
    if (!whole.has_value()) {
      report_.failure = whole.error().message();
    } else if (!whole->clean()) {
      report_.violation =
          fmt::format("{} things are damaged in what the server left, the first: {}",
                      whole->damage_count, whole->findings.front().what);
    }
  }

  // ---- Figures ----

  void sample_if_due() {
    const milliseconds every = std::max(kSampleEveryMin, options().duration / kSamplesMax);
    const auto now = steady_clock::now();
    if (!report_.samples.empty() && now - last_sample_ < every) return;
    sample();
  }

  void sample() {
    last_sample_ = steady_clock::now();
    SoakSample out;
    out.seconds = seconds_between(start_, last_sample_);
    out.life = report_.kills;
    milliseconds warm_up = std::min(kWarmUpMax, options().duration / 5);
    if (server_ && options().kill_every.count() > 0) {
      warm_up = std::min(warm_up, options().kill_every / 3);
    }
    out.warm = last_sample_ - (server_ ? server_started_ : start_) >= warm_up;
    if (server_) {
      const auto figures = server_->figures();
      if (!figures.has_value()) return;
      out.resident_bytes = figures->resident_bytes;
      out.anonymous_bytes = figures->anonymous_bytes;
      out.mapped_bytes = figures->mapped_bytes;
      out.descriptors = figures->descriptors;
      out.disk_bytes = bytes_in(server_->data_dir());
    }
    report_.samples.push_back(out);
  }

  static uint64_t bytes_in(const std::string& dir) {
    uint64_t bytes = 0;
    const auto names = posix_file_system().list(dir);
    if (!names.has_value()) return 0;
    for (const std::string& name : *names) {
      const auto size = posix_file_system().file_size(dir + "/" + name);
      if (size.has_value()) bytes += *size;  // else it went since
    }
    return bytes;
  }

  void draw_progress() {
    SoakProgress out;
    out.seconds = seconds_between(start_, steady_clock::now());
    for (const auto& tally : tallies_) {
      for (const SoakOpReport& op : tally->ops()) {
        out.requests += op.latency.count() + op.refused + op.errors;
        out.errors += op.errors;
        out.refused += op.refused;
        out.worst_p99_us = std::max(out.worst_p99_us, op.latency.quantile_us(0.99));
      }
    }
    out.kills = report_.kills;
    if (!report_.samples.empty()) out.last = report_.samples.back();
    draw_(out);
  }

  void collect() {
    report_.seconds = seconds_between(start_, steady_clock::now());
    for (const auto& tally : tallies_) {
      const auto ops = tally->ops();
      for (size_t i = 0; i < kLoadOpsCount; ++i) {
        report_.ops[i].latency.add_all(ops[i].latency);
        report_.ops[i].refused += ops[i].refused;
        report_.ops[i].errors += ops[i].errors;
      }
    }
    for (const auto& client : clients_) {
      report_.hits_checked += client->hits_checked();
      report_.doubts_applied += client->doubts_applied();
      report_.doubts_dropped += client->doubts_dropped();
    }
  }

  const std::atomic<bool>& stop_;
  const std::function<void(const SoakProgress&)>& draw_;
  SoakReport report_;
  LoadOptions load_;
  LoadBoard board_;
  ClientOptions connection_;
  std::unique_ptr<ServerProcess> server_;  // ours, if it is
  std::vector<std::unique_ptr<LoadClient>> clients_;
  std::vector<std::unique_ptr<Tally>> tallies_;
  steady_clock::time_point start_, server_started_, last_sample_;

  std::atomic<bool> life_over_{false};  // clients are to return
  std::atomic<bool> killed_{false};     // what gets no answer now is no error
  std::atomic<bool> wrong_{false};
  Mutex problem_mutex_;
  std::string problem_ GUARDED_BY(problem_mutex_);
};

std::string_view name_of(const SoakOptions& options) {
  return options.server ? "url" : "own";
}

/// The mean of one figure over a part of a run.
struct SlopePart {
  double hours = 0;  // the middle of its samples
  double mean = 0;
  size_t samples = 0;
};

std::vector<SlopePart> parts_of(const std::vector<SoakSample>& samples,
                                uint64_t SoakSample::*figure) {
  std::vector<SoakSample> warm;
  std::copy_if(samples.begin(), samples.end(), std::back_inserter(warm),
               [](const SoakSample& sample) { return sample.warm; });
  const bool one_life = warm.empty() || warm.front().life == warm.back().life;
  std::map<uint64_t, SlopePart> by_number;
  for (size_t i = 0; i < warm.size(); ++i) {
    SlopePart& part = by_number[one_life ? i * kSlopePartsOfOneLife / warm.size() : warm[i].life];
    part.hours += warm[i].seconds / 3600;
    part.mean += static_cast<double>(warm[i].*figure);
    ++part.samples;
  }
  size_t most = 0;
  for (const auto& [number, part] : by_number) most = std::max(most, part.samples);
  std::vector<SlopePart> out;
  for (auto& [number, part] : by_number) {
    if (2 * part.samples < most) continue;  // a life cut short: warmed up less than the others
    part.hours /= static_cast<double>(part.samples);
    part.mean /= static_cast<double>(part.samples);
    out.push_back(part);
  }
  return out;
}

Value latency_value(const SoakOpReport& op) {
  const LatencyHistogram& latency = op.latency;
  return Value::Object{{"answered", latency.count()},
                       {"refused", op.refused},
                       {"errors", op.errors},
                       {"mean_us", latency.mean_us()},
                       {"p50_us", latency.quantile_us(0.5)},
                       {"p90_us", latency.quantile_us(0.9)},
                       {"p99_us", latency.quantile_us(0.99)},
                       {"p999_us", latency.quantile_us(0.999)},
                       {"max_us", latency.max_us()}};
}

Value figure_value(const SoakReport& report, uint64_t SoakSample::*figure) {
  uint64_t most = 0;
  for (const SoakSample& sample : report.samples) most = std::max(most, sample.*figure);
  Value::Object out{{"max", most},
                    {"last", report.samples.empty() ? 0 : report.samples.back().*figure},
                    {"per_hour", nullptr},
                    {"per_hour_error", nullptr},
                    {"percent_per_hour", nullptr},
                    {"percent_per_hour_error", nullptr},
                    {"slope_parts", 0}};
  if (const auto slope = slope_of(report.samples, figure)) {
    out["per_hour"] = slope->per_hour;
    out["per_hour_error"] = slope->error_per_hour;
    out["percent_per_hour"] = slope->percent_per_hour;
    out["percent_per_hour_error"] = slope->error_percent_per_hour;
    out["slope_parts"] = uint64_t{slope->parts};
  }
  return out;
}

Value samples_value(const SoakReport& report) {
  Value::Array out;
  for (const SoakSample& sample : report.samples) {
    out.push_back(Value::Object{{"seconds", sample.seconds},
                                {"life", sample.life},
                                {"warm", sample.warm},
                                {"resident_bytes", sample.resident_bytes},
                                {"anonymous_bytes", sample.anonymous_bytes},
                                {"mapped_bytes", sample.mapped_bytes},
                                {"descriptors", sample.descriptors},
                                {"disk_bytes", sample.disk_bytes}});
  }
  return out;
}

}  // namespace

uint64_t SoakReport::requests() const {
  uint64_t sum = 0;
  for (const SoakOpReport& op : ops) sum += op.latency.count() + op.refused + op.errors;
  return sum;
}
uint64_t SoakReport::errors() const {
  uint64_t sum = 0;
  for (const SoakOpReport& op : ops) sum += op.errors;
  return sum;
}
uint64_t SoakReport::refused() const {
  uint64_t sum = 0;
  for (const SoakOpReport& op : ops) sum += op.refused;
  return sum;
}
double SoakReport::error_rate() const {
  const uint64_t all = requests();
  return all == 0 ? 0 : static_cast<double>(errors() + refused()) / static_cast<double>(all);
}

std::optional<Slope> slope_of(const std::vector<SoakSample>& samples,
                              uint64_t SoakSample::*figure) {
  const std::vector<SlopePart> parts = parts_of(samples, figure);
  if (parts.size() < kSlopePartsMin) return std::nullopt;
  const auto n = static_cast<double>(parts.size());
  double mean_x = 0, mean_y = 0;
  for (const SlopePart& part : parts) {
    mean_x += part.hours / n;
    mean_y += part.mean / n;
  }
  double sum_xx = 0, sum_xy = 0;
  for (const SlopePart& part : parts) {
    sum_xx += (part.hours - mean_x) * (part.hours - mean_x);
    sum_xy += (part.hours - mean_x) * (part.mean - mean_y);
  }
  if (sum_xx <= 0) return std::nullopt;
  Slope out;
  out.parts = parts.size();
  out.per_hour = sum_xy / sum_xx;
  double sum_rest = 0;
  for (const SlopePart& part : parts) {
    const double rest = part.mean - mean_y - out.per_hour * (part.hours - mean_x);
    sum_rest += rest * rest;
  }
  out.error_per_hour = std::sqrt(sum_rest / (n - 2) / sum_xx);
  if (mean_y > 0) {
    out.percent_per_hour = out.per_hour / mean_y * 100;
    out.error_percent_per_hour = out.error_per_hour / mean_y * 100;
  }
  return out;
}

SoakReport run_soak(const SoakOptions& options, const std::atomic<bool>& stop,
                    const std::function<void(const SoakProgress&)>& draw) {
  return Soak(options, stop, draw).run();
}

Value soak_value(const SoakReport& report, double error_rate_max) {
  const SoakOptions& options = report.options;
  Value::Object ops;
  for (size_t i = 0; i < kLoadOpsCount; ++i) {
    ops[std::string(load_op_name(static_cast<LoadOp>(i)))] = latency_value(report.ops[i]);
  }
  Value::Object out;
  out["ok"] =
      report.violation.empty() && report.failure.empty() && report.error_rate() <= error_rate_max;
  out["violation"] = report.violation.empty() ? Value(nullptr) : Value(report.violation);
  out["failure"] = report.failure.empty() ? Value(nullptr) : Value(report.failure);
  out["server"] = std::string(name_of(options));
  out["seed"] = options.seed;
  out["clients"] = options.clients;
  out["dimension"] = uint64_t{options.dimension};
  out["ids"] = options.clients * options.keys_each;
  out["seconds"] = report.seconds;
  out["requests"] = report.requests();
  out["requests_per_second"] =
      report.seconds > 0 ? static_cast<double>(report.requests()) / report.seconds : 0.0;
  out["errors"] = report.errors();
  out["refused"] = report.refused();
  out["error_rate"] = report.error_rate();
  out["error_rate_max"] = error_rate_max;
  out["kills"] = report.kills;
  out["verifications"] = report.verifications;
  out["doubts_applied"] = report.doubts_applied;
  out["doubts_dropped"] = report.doubts_dropped;
  out["hits_checked"] = report.hits_checked;
  out["slowest_start_ms"] = report.slowest_start_ms;
  out["operations"] = std::move(ops);
  out["resident_bytes"] = figure_value(report, &SoakSample::resident_bytes);
  out["anonymous_bytes"] = figure_value(report, &SoakSample::anonymous_bytes);
  out["mapped_bytes"] = figure_value(report, &SoakSample::mapped_bytes);
  out["descriptors"] = figure_value(report, &SoakSample::descriptors);
  out["disk_bytes"] = figure_value(report, &SoakSample::disk_bytes);
  out["samples"] = samples_value(report);
  return out;
}

Result<std::chrono::milliseconds> parse_duration(std::string_view text) {
  const Status bad = invalid_argument("'" + std::string(text.substr(0, 40)) +
                                      "' is no duration: want 30s, 5m, 2h or 3d");
  if (text.size() < 2) return bad;
  int64_t unit = 0;
  switch (text.back()) {
    case 's': unit = 1000; break;
    case 'm': unit = 60000; break;
    case 'h': unit = 3600000; break;
    case 'd': unit = 86400000; break;
    default: return bad;
  }
  uint32_t number = 0;
  const char* const end = text.data() + text.size() - 1;
  const auto parsed = std::from_chars(text.data(), end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end || number == 0) return bad;
  return std::chrono::milliseconds(number * unit);
}

}  // namespace aionbd
