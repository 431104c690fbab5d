// The real program, SIGKILL in a loop, and an exact oracle (docs/testing.md; test T6 of the plan).
//
// The oracle is that of src/cli/load_client.h: what was acknowledged is there after each restart, a
// request that the kill cut off happened whole or not at all, and there is nothing else.
//
// Thresholds are tiny, so that log rotation, checkpoints and compaction run all the time; every
// fifth kill hits the recovery of the one before. What a kill left in the directory tells whether
// it hit a checkpoint or a merge. `--points` keeps a collection of that size beside the load.
#include <fmt/format.h>
#include <signal.h>
#include <simdjson.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/rng.h"
#include "cli/arguments.h"
#include "cli/client.h"
#include "cli/load_client.h"
#include "cli/server_process.h"
#include "io/file_system.h"
#include "storage/manifest.h"

namespace aionbd {
namespace {

constexpr uint64_t kKeysPerWriter = 64;
constexpr uint32_t kDimension = 8;
/// Keys of one batch; small, so that many batches fit between two kills.
constexpr uint64_t kBatchKeysMax = 16;
constexpr std::chrono::seconds kReadyMax{3};
/// f32 holds whole numbers below 2^24 exactly.
constexpr uint64_t kDigit = uint64_t{1} << 20;
constexpr const char* kCollection = "kill";
constexpr const char* kBallast = "ballast";
constexpr uint64_t kBallastBatch = 250;

LoadOptions load_options() {
  LoadOptions out;
  out.collection = kCollection;
  out.dimension = kDimension;
  out.keys_each = kKeysPerWriter;
  out.batch_max = kBatchKeysMax;
  return out;
}

struct Flags {
  std::string binary;
  uint64_t kills = 10;
  size_t writers = 8;
  uint64_t seed = 0;
  uint32_t alive_ms_max = 400;
  uint64_t points = 0;
  bool keep = false;
};

/// Ends the test: the server is killed, the directory kept.
struct Violation {
  std::string what;
};

std::vector<std::string> server_flags(bool async_checkpoints) {
  return {"--checkpoint-interval",      "4",
          "--checkpoint-compact-after", "3",
          "--async-checkpoints",        async_checkpoints ? "true" : "false",
          "--request-timeout-ms",       "20000"};
}

/// Whether the process that was killed was inside a checkpoint or a merge, by what it left: a
/// second log, something half written, or a segment that no manifest names. A kill between two of
/// its steps may leave nothing; this never says yes to one outside.
bool killed_in_maintenance(const std::string& dir) {
  const auto manifest = read_manifest(&posix_file_system(), dir);
  if (!manifest.has_value()) return false;
  size_t logs = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".tmp") return true;
    if (extension == ".log" && ++logs > 1) return true;
    if (extension != ".seg") continue;
    const uint64_t id = std::stoull(entry.path().stem().string(), nullptr, 16);
    const auto named = [&](const ManifestSegment& segment) { return segment.id == id; };
    if (std::none_of(manifest->segments.begin(), manifest->segments.end(), named)) return true;
  }
  return false;
}

/// One writer: writes until it is stopped, an outcome is in doubt, or something is wrong.
/// Thread safety: single owner at a time.
struct Writer {
  LoadClient* client = nullptr;
  std::string problem;
  uint64_t acknowledged = 0, refused = 0;

  void run(const std::atomic<bool>& stop) {
    client->disconnect();
    while (!stop && problem.empty() && !client->in_doubt()) {
      const LoadStep step = client->step();
      switch (step.outcome) {
        case LoadStep::Outcome::kDone: ++acknowledged; break;
        case LoadStep::Outcome::kRefused: ++refused; break;
        case LoadStep::Outcome::kError:
        case LoadStep::Outcome::kNoAnswer: break;
        case LoadStep::Outcome::kWrong: problem = step.problem; break;
      }
    }
  }
};

/// Makes, fills and drops one collection over and over, each time with another dimension: a name
/// that comes back must come back empty. Thread safety: single owner at a time.
class Recreator {
 public:
  explicit Recreator(ClientOptions options) : options_(std::move(options)) {}

  void run(const std::atomic<bool>& stop) {
    HttpClient client(options_);
    while (!stop && problem.empty() && !in_doubt_) step(client);
  }

  void verify(HttpClient& client) {
    const Stage found = observe(client);
    const Stage next = following(known_);
    if (found != known_ && !(in_doubt_ && found == next)) {
      throw Violation{fmt::format("collection {}: stage {} was acknowledged{}, found {}", kName,
                                  name_of(known_), in_doubt_ ? ", the next in doubt" : "",
                                  name_of(found))};
    }
    if (found != known_) advance();
    in_doubt_ = false;
  }

  std::string problem;
  uint64_t rounds() const { return generation_; }

 private:
  enum class Stage : uint8_t { kMissing, kEmpty, kFilled };
  static constexpr const char* kName = "kill-recreated";
  static constexpr uint64_t kPoints = 8;

  static Stage following(Stage stage) {
    switch (stage) {
      case Stage::kMissing: return Stage::kEmpty;
      case Stage::kEmpty: return Stage::kFilled;
      case Stage::kFilled: return Stage::kMissing;
    }
    return Stage::kMissing;
  }
  static const char* name_of(Stage stage) {
    return stage == Stage::kMissing ? "missing" : stage == Stage::kEmpty ? "empty" : "filled";
  }
  size_t dimension() const { return 2 + generation_ % 5; }
  /// A new generation begins when the collection is made.
  void advance() {
    known_ = following(known_);
    if (known_ == Stage::kMissing) ++generation_;
  }

  void step(HttpClient& client) {
    const std::string path = fmt::format("/collections/{}", kName);
    Result<ServerResponse> answer = ServerResponse{};
    switch (known_) {
      case Stage::kMissing:
        answer =
            client.request("POST", "/collections",
                           fmt::format("{{\"name\":\"{}\",\"dimension\":{}}}", kName, dimension()));
        break;
      case Stage::kEmpty: answer = client.request("POST", path + "/points", points()); break;
      case Stage::kFilled: answer = client.request("DELETE", path); break;
    }
    if (!answer.has_value() || answer->status >= 500) {
      in_doubt_ = true;
    } else if (answer->status < 300) {
      advance();
    } else {
      problem = fmt::format("collection {}, stage {}: unexpected answer {}: {}", kName,
                            name_of(known_), answer->status, answer->body);
    }
  }

  std::string points() const {
    std::string body;
    const std::vector<uint64_t> values(dimension(), generation_ % kDigit);
    for (uint64_t id = 0; id < kPoints; ++id) {
      body += fmt::format("{}{{\"id\":{},\"values\":[{}]}}", body.empty() ? "{\"points\":[" : ",",
                          id, fmt::join(values, ","));
    }
    return body + "]}";
  }

  Stage observe(HttpClient& client) {
    const std::string path = fmt::format("/collections/{}", kName);
    const auto answer =
        client.call("POST", path + "/points/scroll", "{\"limit\":100,\"include_values\":true}");
    if (!answer.has_value()) throw Violation{"cannot read back: " + answer.error().to_string()};
    if (answer->status == 404) return Stage::kMissing;
    if (answer->status != 200) throw Violation{"cannot read back: " + answer->body};
    simdjson::dom::parser parser;
    const simdjson::dom::element page = parser.parse(answer->body);
    const simdjson::dom::array list = page["points"].get_array();
    if (list.size() == 0) return Stage::kEmpty;
    for (const auto point : list) {
      const simdjson::dom::array values = point["values"].get_array();
      bool same = values.size() == dimension();
      for (const auto value : values) {
        double number = 0;
        same = same && value.get(number) == simdjson::SUCCESS &&
               number == static_cast<double>(generation_ % kDigit);
      }
      if (!same) {
        throw Violation{fmt::format("collection {}, generation {}, holds a point of another: {}",
                                    kName, generation_, simdjson::minify(point))};
      }
    }
    if (list.size() != kPoints) {
      throw Violation{fmt::format("half a batch: {} of {} points of collection {}", list.size(),
                                  kPoints, kName)};
    }
    return Stage::kFilled;
  }

  const ClientOptions options_;
  Stage known_ = Stage::kMissing;
  uint64_t generation_ = 1;
  bool in_doubt_ = false;
};

/// The whole run. Thread safety: single owner.
class KillLoop {
 public:
  KillLoop(const Flags& flags, const std::string& dir)
      : flags_(flags),
        rng_(flags.seed),
        server_(flags.binary, dir, free_loopback_port().value()),
        board_(flags.writers * kKeysPerWriter) {
    options_.url.port = std::to_string(server_.port());
    options_.timeout = std::chrono::seconds(30);
    options_.retry_for = std::chrono::seconds(5);
    for (size_t i = 0; i < flags.writers; ++i) {
      clients_.push_back(std::make_unique<LoadClient>(load_, i, flags.seed, &board_, options_));
      writers_.push_back({clients_.back().get(), "", 0, 0});
    }
    recreator_.emplace(options_);
  }

  void run() {
    start_ready();
    HttpClient client(options_);
    const Status made = create_load_collection(client, load_, "");
    if (!made.ok()) throw Violation{"cannot create the collection: " + made.message()};
    if (flags_.points > 0) load_ballast(client);
    while (kills_ < flags_.kills) {
      write_until_killed();
      restart();
      verify();
      if (kills_ % 10 == 0) report();
    }
    // At last an orderly end, and the same state after it.
    const int code = server_.terminate(std::chrono::seconds(8));
    if (code != 0)
      throw Violation{fmt::format("SIGTERM ended with {} (-1 = not within 8 s)", code)};
    start_ready();
    verify();
    server_.kill_now();
  }

  void report() const {
    uint64_t acknowledged = 0, refused = 0, applied = 0, dropped = 0;
    for (const Writer& writer : writers_) {
      acknowledged += writer.acknowledged;
      refused += writer.refused;
      applied += writer.client->doubts_applied();
      dropped += writer.client->doubts_dropped();
    }
    fmt::print(
        "{} kills ({} in recovery, {} in a checkpoint or merge), {} writes acknowledged, {} "
        "refused, in doubt: {} applied, "
        "{} not; {} collections recreated; slowest start {} ms\n",
        kills_, kills_in_recovery_, kills_in_maintenance_, acknowledged, refused, applied, dropped,
        recreator_->rounds(), slowest_start_ms_);
    std::fflush(stdout);
  }

 private:
  void load_ballast(HttpClient& client) {
    const auto made = client.request("POST", "/collections",
                                     fmt::format(R"({{"name":"{}","dimension":2}})", kBallast));
    if (!made.has_value() || made->status != 200) throw Violation{"cannot create the ballast"};
    for (uint64_t first = 0; first < flags_.points; first += kBallastBatch) {
      std::string body = R"({"points":[)";
      for (uint64_t id = first; id < std::min(first + kBallastBatch, flags_.points); ++id) {
        body += fmt::format(R"({}{{"id":{},"values":[{},1]}})", id == first ? "" : ",", id, id);
      }
      const auto stored =
          client.request("POST", fmt::format("/collections/{}/points", kBallast), body + "]}");
      if (!stored.has_value() || stored->status != 200) throw Violation{"cannot load the ballast"};
    }
  }

  void verify_ballast(HttpClient& client) {
    const auto counted =
        client.request("POST", fmt::format("/collections/{}/points/count", kBallast), "{}");
    const std::string wanted = fmt::format(R"({{"count":{}}})", flags_.points);
    if (!counted.has_value() || counted->body != wanted) {
      throw Violation{"ballast: want " + wanted + ", got " +
                      (counted.has_value() ? counted->body : counted.error().to_string())};
    }
  }

  void write_until_killed() {
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (Writer& writer : writers_) threads.emplace_back([&writer, &stop] { writer.run(stop); });
    threads.emplace_back([this, &stop] { recreator_->run(stop); });
    std::this_thread::sleep_for(std::chrono::milliseconds(1 + rng_.below(flags_.alive_ms_max)));
    const std::string ended = server_.end_if_any();
    server_.kill_now();
    ++kills_;
    if (killed_in_maintenance(server_.data_dir())) ++kills_in_maintenance_;
    stop = true;
    for (std::thread& thread : threads) thread.join();
    if (!ended.empty()) throw Violation{"the server ended by itself: " + ended};
    for (const Writer& writer : writers_) {
      if (!writer.problem.empty()) throw Violation{writer.problem};
    }
    if (!recreator_->problem.empty()) throw Violation{recreator_->problem};
  }

  void restart() {
    while (rng_.chance(0.2)) {
      start();
      std::this_thread::sleep_for(std::chrono::microseconds(rng_.below(40000)));
      const std::string ended = server_.end_if_any();
      if (!ended.empty()) throw Violation{"the server ended while recovering: " + ended};
      server_.kill_now();
      ++kills_;
      ++kills_in_recovery_;
    }
    start_ready();
  }

  void start() {
    const Status started = server_.start(server_flags(kills_ % 2 == 1));
    if (!started.ok()) throw Violation{"cannot start the server: " + started.message()};
  }

  void start_ready() {
    const auto begin = std::chrono::steady_clock::now();
    start();
    HttpClient client(options_);
    while (true) {
      const auto answer = client.request("GET", "/ready");
      const auto took = std::chrono::steady_clock::now() - begin;
      if (answer.has_value() && answer->status == 200) {
        slowest_start_ms_ = std::max(
            slowest_start_ms_, std::chrono::duration_cast<std::chrono::milliseconds>(took).count());
        return;
      }
      const std::string ended = server_.end_if_any();
      if (!ended.empty()) throw Violation{"the server does not start: " + ended};
      if (took > kReadyMax) {
        throw Violation{fmt::format("not ready after {} s", kReadyMax.count())};
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  void verify() {
    HttpClient client(options_);
    const Status right = verify_load(client, load_, clients_);
    if (!right.ok()) throw Violation{right.message()};
    recreator_->verify(client);
    if (flags_.points > 0) verify_ballast(client);
  }

  const Flags& flags_;
  Rng rng_;
  ServerProcess server_;
  ClientOptions options_;
  const LoadOptions load_ = load_options();
  LoadBoard board_;
  std::vector<std::unique_ptr<LoadClient>> clients_;
  std::vector<Writer> writers_;
  std::optional<Recreator> recreator_;
  uint64_t kills_ = 0, kills_in_recovery_ = 0, kills_in_maintenance_ = 0;
  int64_t slowest_start_ms_ = 0;
};

int run(const Flags& flags) {
  std::string dir = (std::filesystem::temp_directory_path() / "aionbd_kill_XXXXXX").string();
  CHECK_TRUE(mkdtemp(dir.data()) != nullptr);
  fmt::print("seed {}, {} kills, {} writers, data in {}\n", flags.seed, flags.kills, flags.writers,
             dir);
  std::fflush(stdout);
  KillLoop loop(flags, dir);
  try {
    loop.run();
  } catch (const Violation& violation) {
    loop.report();
    fmt::print("VIOLATION: {}\nkept: {} (server.log, data); seed {}\n", violation.what, dir,
               flags.seed);
    return 1;
  }
  loop.report();
  if (!flags.keep) std::filesystem::remove_all(dir);
  fmt::print("0 lost, 0 half batches, 0 phantoms\n");
  return 0;
}

}  // namespace
}  // namespace aionbd

int main(int argc, char** argv) {
  aionbd::Flags flags;
  flags.seed = aionbd::entropy_seed();
  aionbd::CommandLine line(
      "kill_loop", "Kills the server in a loop and checks that nothing acknowledged is lost");
  aionbd::Arguments args = line.arguments();
  args.option("BINARY", flags.binary, "The aionbd program").required().existing_file();
  args.option("--kills", flags.kills, "How often").show_default();
  args.option("--writers", flags.writers, "Threads that write")
      .between(uint64_t{1}, uint64_t{256})
      .show_default();
  args.option("--seed", flags.seed, "Repeats the choices of a run, not its timing");
  args.option("--alive-ms", flags.alive_ms_max, "Longest time between start and kill")
      .between(1U, 600000U)
      .show_default();
  args.option("--points", flags.points, "Points of a collection beside the load")
      .between(uint64_t{0}, uint64_t{10000000})
      .show_default();
  args.flag("--keep", flags.keep, "Keep the data directory");
  if (const auto code = line.parse({argv + 1, argv + argc})) return *code;
  signal(SIGPIPE, SIG_IGN);
  return aionbd::run(flags);
}
