// A long mixed load against a server, judged answer by answer (load_client.h), with kills if the
// server is ours, and what it used meanwhile.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "aionbd/status.h"
#include "aionbd/types.h"
#include "cli/client.h"
#include "cli/latency.h"
#include "cli/load_client.h"

namespace aionbd {

struct SoakOptions {
  /// The server to load; unset: one is started from `program`, with its data below `dir`.
  std::optional<ClientOptions> server;
  std::string program;
  std::string dir;
  std::string collection = "soak";
  std::string metric = "l2";
  std::chrono::milliseconds duration{60000};
  /// Pause between two kills of our own server; 0: none.
  std::chrono::milliseconds kill_every{0};
  uint64_t clients = 4;
  uint64_t keys_each = 2000;
  uint64_t batch_max = 64;
  uint32_t dimension = 64;
  double requests_per_second = 0;  // of all clients together; 0: as fast as it goes
  uint64_t seed = 0;
  bool keep_collection = false;
};

/// One kind of request.
struct SoakOpReport {
  LatencyHistogram latency;  // of answers
  uint64_t refused = 0;
  uint64_t errors = 0;  // 5xx and missing answers, outside kills
};

/// What the server used at one moment. Unknown figures are 0.
struct SoakSample {
  double seconds = 0;
  uint64_t life = 0;  // of the server: 0, and one more after each kill
  bool warm = false;  // long enough after a start for the slopes
  uint64_t resident_bytes = 0;
  uint64_t anonymous_bytes = 0, mapped_bytes = 0;  // what they are
  uint64_t descriptors = 0;
  uint64_t disk_bytes = 0;
};

struct SoakReport {
  SoakOptions options;
  double seconds = 0;
  std::array<SoakOpReport, kLoadOpsCount> ops;
  uint64_t hits_checked = 0;
  uint64_t verifications = 0;  // of everything stored
  uint64_t kills = 0;
  uint64_t doubts_applied = 0, doubts_dropped = 0;
  uint64_t slowest_start_ms = 0;
  std::vector<SoakSample> samples;
  /// Why the run ended early, or what was wrong: empty when all was right.
  std::string violation;
  /// The server could not be reached, started or stopped.
  std::string failure;

  uint64_t requests() const;
  uint64_t errors() const;
  uint64_t refused() const;
  double error_rate() const;
};

/// Change per hour of one figure, by least squares over the means of parts of the run, and its
/// standard error, from how far they are from the line. A part is one life of the server, or with a
/// single life a tenth of its warm samples. Single samples would give neither: they are not
/// independent, and within a life memory rises as the heap warms up, which a kill takes back.
/// Nothing with too few parts. The means of lives see growth that outlasts a restart, so a leak of
/// the process itself is found by a run without kills.
struct Slope {
  double per_hour = 0, error_per_hour = 0;
  double percent_per_hour = 0, error_percent_per_hour = 0;  // of the mean
  size_t parts = 0;
};
std::optional<Slope> slope_of(const std::vector<SoakSample>& samples, uint64_t SoakSample::*figure);

/// How far a run is, for a line of progress.
struct SoakProgress {
  double seconds = 0;
  uint64_t requests = 0, errors = 0, refused = 0, kills = 0;
  uint64_t worst_p99_us = 0;
  SoakSample last;
};

/// Runs until the time is over, something is wrong, or `stop` says so. Whatever happened is in the
/// report. `draw` is called a few times a second.
SoakReport run_soak(const SoakOptions& options, const std::atomic<bool>& stop,
                    const std::function<void(const SoakProgress&)>& draw);

/// The report as one JSON object.
Value soak_value(const SoakReport& report, double error_rate_max);

/// "30s", "5m", "2h", "3d". Errors: invalid_argument.
Result<std::chrono::milliseconds> parse_duration(std::string_view text);

}  // namespace aionbd
