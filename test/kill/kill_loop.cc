// The real program, SIGKILL in a loop, and an exact oracle (docs/testing.md; test T6 of the plan).
//
// Each writer owns a range of ids and has one request under way at a time, so for each id it knows
// what the server acknowledged last and which single request, if any, was cut off by the kill.
// After each restart every stored point must be either the acknowledged one or that request's; a
// batch that was cut off must be there whole or not at all. A vector spells its writer, key and
// sequence number and a hash of them, so that a torn, mixed or invented row is recognised by
// itself.
//
// Thresholds are tiny, so that log rotation, checkpoints and compaction run all the time; every
// fifth kill hits the recovery of the one before.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <signal.h>
#include <simdjson.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/mutex.h"
#include "base/rng.h"
#include "cli/client.h"

namespace aionbd {
namespace {

constexpr uint64_t kKeysPerWriter = 64;
constexpr size_t kDimension = 8;
constexpr uint64_t kAbsent = 0;  // sequence numbers begin at 1
/// Keys of one batch; small, so that many batches fit between two kills.
constexpr size_t kBatchKeysMax = 16;
constexpr std::chrono::seconds kReadyMax{3};
/// f32 holds whole numbers below 2^24 exactly.
constexpr uint64_t kDigit = uint64_t{1} << 20;
constexpr const char* kCollection = "kill";

struct Flags {
  std::string binary;
  uint64_t kills = 10;
  size_t writers = 8;
  uint64_t seed = 0;
  uint32_t alive_ms_max = 400;
  bool keep = false;
};

/// Ends the test: the server is killed, the directory kept.
struct Violation {
  std::string what;
};

std::array<float, kDimension> vector_of(uint64_t id, uint64_t sequence) {
  std::array<float, kDimension> out{};
  out[0] = static_cast<float>(id);
  out[1] = static_cast<float>(sequence % kDigit);
  out[2] = static_cast<float>(sequence / kDigit);
  Rng hash(id * 0x9E3779B97F4A7C15U + sequence);
  for (size_t i = 3; i < kDimension; ++i) out[i] = static_cast<float>(1 + hash.below(kDigit));
  return out;
}

std::string point_json(uint64_t id, uint64_t sequence) {
  return fmt::format("\"values\":[{}],\"payload\":{{\"id\":{},\"sequence\":{}}}",
                     fmt::join(vector_of(id, sequence), ","), id, sequence);
}

/// The server as a child process. Thread safety: single owner.
class ServerProcess {
 public:
  ServerProcess(std::string binary, std::string dir, uint16_t port)
      : binary_(std::move(binary)), dir_(std::move(dir)), port_(port) {}
  ~ServerProcess() { kill_now(); }
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  void start(bool async_checkpoints) {
    // Everything the child needs is made before the fork: after it only exec may follow.
    std::vector<std::string> words = {binary_,
                                      "serve",
                                      "--bind",
                                      fmt::format("127.0.0.1:{}", port_),
                                      "--data-dir",
                                      dir_ + "/data",
                                      "--checkpoint-interval",
                                      "4",
                                      "--checkpoint-compact-after",
                                      "3",
                                      "--async-checkpoints",
                                      async_checkpoints ? "true" : "false",
                                      "--request-timeout-ms",
                                      "20000"};
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const int log =
        open((dir_ + "/server.log").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    pid_ = fork();
    CHECK_GE(pid_, 0);
    if (pid_ == 0) {
      dup2(log, STDERR_FILENO);
      execv(arguments[0], arguments.data());
      _exit(127);
    }
    close(log);
  }

  void kill_now() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

  /// How it ended, if it did by itself.
  std::string end_if_any() {
    int status = 0;
    if (pid_ <= 0 || waitpid(pid_, &status, WNOHANG) == 0) return {};
    pid_ = -1;
    return WIFEXITED(status) ? fmt::format("exit code {}", WEXITSTATUS(status))
                             : fmt::format("signal {}", WTERMSIG(status));
  }

  /// Waits for SIGTERM to end it; the exit code, or -1 when it did not within `time`.
  int terminate(std::chrono::seconds time) {
    kill(pid_, SIGTERM);
    const auto end = std::chrono::steady_clock::now() + time;
    while (std::chrono::steady_clock::now() < end) {
      int status = 0;
      if (waitpid(pid_, &status, WNOHANG) == pid_) {
        pid_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return -1;
  }

 private:
  const std::string binary_, dir_;
  const uint16_t port_;
  pid_t pid_ = -1;
};

/// A request whose outcome the kill left open: the sequence each of its keys would have.
using InDoubt = std::vector<std::pair<uint64_t, uint64_t>>;

/// One writer: its requests, and what it knows. Thread safety: single owner at a time.
class Writer {
 public:
  Writer(size_t index, uint64_t seed, ClientOptions options)
      : base_(index * kKeysPerWriter), rng_(seed + index * 7919), options_(std::move(options)) {
    for (uint64_t i = 0; i < kKeysPerWriter; ++i) known_[base_ + i] = kAbsent;
  }

  /// Writes until `stop`, until an outcome is in doubt, or until something is wrong (`problem`).
  void run(const std::atomic<bool>& stop) {
    HttpClient client(options_);
    while (!stop && problem.empty() && in_doubt_.empty()) step(client);
  }

  /// The state after a restart against what may be there; then it is what is known.
  void verify(const std::map<uint64_t, uint64_t>& stored) {
    size_t changed = 0, unchanged = 0;
    std::map<uint64_t, uint64_t> doubted;
    for (const auto& [id, sequence] : in_doubt_) doubted[id] = sequence;
    for (auto& [id, sequence] : known_) {
      const auto at = stored.find(id);
      const uint64_t found = at == stored.end() ? kAbsent : at->second;
      const auto doubt = doubted.find(id);
      const bool may_change = doubt != doubted.end() && doubt->second != sequence;
      if (may_change && found == doubt->second) {
        ++changed;
      } else if (found == sequence) {
        if (may_change) ++unchanged;
      } else {
        throw Violation{fmt::format(
            "id {}: acknowledged sequence {}, in doubt {}, found {} (0 = absent): {}", id, sequence,
            may_change ? doubt->second : sequence, found,
            found < sequence || found == kAbsent ? "an acknowledged write is lost" : "a phantom")};
      }
      sequence = found;
    }
    if (changed > 0 && unchanged > 0) {
      throw Violation{fmt::format("half a batch: {} of {} changes of one request are there",
                                  changed, changed + unchanged)};
    }
    if (!in_doubt_.empty()) ++(changed > 0 ? doubts_applied : doubts_dropped);
    in_doubt_.clear();
  }

  uint64_t present() const {
    uint64_t count = 0;
    for (const auto& [id, sequence] : known_) count += sequence != kAbsent;
    return count;
  }

  std::string problem;
  uint64_t acknowledged = 0, refused = 0, doubts_applied = 0, doubts_dropped = 0;

 private:
  void step(HttpClient& client) {
    const uint64_t kind = rng_.below(100);
    if (kind < 40) {
      put_one(client);
    } else if (kind < 70) {
      put_batch(client);
    } else if (kind < 85) {
      delete_one(client);
    } else {
      delete_batch(client);
    }
  }

  uint64_t any_id() { return base_ + rng_.below(kKeysPerWriter); }
  std::map<uint64_t, uint64_t> any_ids(bool absent) {
    std::map<uint64_t, uint64_t> ids;
    const uint64_t count = 2 + rng_.below(kBatchKeysMax - 1);
    while (ids.size() < count) ids[any_id()] = kAbsent;
    if (!absent) {
      for (auto& [id, sequence] : ids) sequence = ++last_sequence_;
    }
    return ids;
  }

  void put_one(HttpClient& client) {
    const uint64_t id = any_id();
    const uint64_t sequence = ++last_sequence_;
    finish(client.request("PUT", fmt::format("/collections/{}/points/{}", kCollection, id),
                          "{" + point_json(id, sequence) + "}"),
           {{id, sequence}});
  }

  void put_batch(HttpClient& client) {
    const auto ids = any_ids(false);
    std::string body;
    for (const auto& [id, sequence] : ids) {
      body += fmt::format("{}{{\"id\":{},{}}}", body.empty() ? "{\"points\":[" : ",", id,
                          point_json(id, sequence));
    }
    finish(client.request("POST", fmt::format("/collections/{}/points", kCollection), body + "]}"),
           InDoubt(ids.begin(), ids.end()));
  }

  void delete_one(HttpClient& client) {
    const uint64_t id = any_id();
    const auto answer =
        client.request("DELETE", fmt::format("/collections/{}/points/{}", kCollection, id));
    if (answer.has_value() && answer->status == 404) {
      if (known_[id] != kAbsent) {
        problem = fmt::format("id {}: sequence {} was acknowledged, deleting it says 404", id,
                              known_[id]);
      }
      return;
    }
    finish(answer, {{id, kAbsent}});
  }

  void delete_batch(HttpClient& client) {
    const auto ids = any_ids(true);
    std::string list;
    for (const auto& [id, sequence] : ids) list += fmt::format("{}{}", list.empty() ? "" : ",", id);
    finish(client.request("POST", fmt::format("/collections/{}/points/delete", kCollection),
                          "{\"ids\":[" + list + "]}"),
           InDoubt(ids.begin(), ids.end()));
  }

  void finish(const Result<ServerResponse>& answer, InDoubt changes) {
    if (!answer.has_value() || answer->status >= 500) {
      in_doubt_ = std::move(changes);
      return;
    }
    if (answer->status >= 300) {
      // Changed nothing, says the contract; the next verification checks that.
      ++refused;
      if (answer->status != 408 && answer->status != 429) {
        problem = fmt::format("unexpected answer {}: {}", answer->status, answer->body);
      }
      return;
    }
    for (const auto& [id, sequence] : changes) known_[id] = sequence;
    ++acknowledged;
  }

  const uint64_t base_;
  Rng rng_;
  const ClientOptions options_;
  uint64_t last_sequence_ = 0;
  std::map<uint64_t, uint64_t> known_;  // id -> acknowledged sequence
  InDoubt in_doubt_;
};

/// The sequence a stored point spells. Throws Violation when it is no row of ours.
std::pair<uint64_t, uint64_t> read_point(const simdjson::dom::element& point) {
  uint64_t id = 0, payload_id = 0, sequence = 0;
  simdjson::dom::array values;
  if (point["id"].get(id) != simdjson::SUCCESS ||
      point["values"].get(values) != simdjson::SUCCESS ||
      point["payload"]["id"].get(payload_id) != simdjson::SUCCESS ||
      point["payload"]["sequence"].get(sequence) != simdjson::SUCCESS) {
    throw Violation{"a stored point is not of our form: " + simdjson::minify(point)};
  }
  const auto expected = vector_of(id, sequence);
  size_t i = 0;
  bool same = payload_id == id && sequence > 0 && values.size() == kDimension;
  for (const auto value : values) {
    double number = 0;
    same = same && value.get(number) == simdjson::SUCCESS &&
           static_cast<float>(number) == expected[i++];
  }
  if (!same) throw Violation{"a stored point is torn or mixed: " + simdjson::minify(point)};
  return {id, sequence};
}

/// Everything in the collection, through the cursor.
std::map<uint64_t, uint64_t> read_all(HttpClient& client) {
  std::map<uint64_t, uint64_t> stored;
  std::string cursor;
  while (true) {
    const auto answer =
        client.call("POST", fmt::format("/collections/{}/points/scroll", kCollection),
                    fmt::format("{{\"limit\":200,\"include_values\":true{}}}", cursor));
    if (!answer.has_value()) throw Violation{"cannot read back: " + answer.error().to_string()};
    if (answer->status != 200) throw Violation{"cannot read back: " + answer->body};
    simdjson::dom::parser parser;
    const simdjson::dom::element page = parser.parse(answer->body);
    for (const auto point : page["points"].get_array()) {
      const auto [id, sequence] = read_point(point);
      if (!stored.emplace(id, sequence).second) {
        throw Violation{fmt::format("id {} is listed twice", id)};
      }
    }
    const simdjson::dom::element next = page["next_cursor"];
    if (next.is_null()) return stored;
    cursor = ",\"cursor\":" + simdjson::minify(next);
  }
}

uint64_t count_all(HttpClient& client) {
  const auto answer =
      client.call("POST", fmt::format("/collections/{}/points/count", kCollection), "{}");
  if (!answer.has_value() || answer->status != 200) throw Violation{"cannot count the points"};
  simdjson::dom::parser parser;
  return parser.parse(answer->body)["count"].get_uint64();
}

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

uint16_t free_port() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  CHECK_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  CHECK_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(fd);
  return ntohs(address.sin_port);
}

/// The whole run. Thread safety: single owner.
class KillLoop {
 public:
  KillLoop(const Flags& flags, const std::string& dir)
      : flags_(flags), rng_(flags.seed), port_(free_port()), server_(flags.binary, dir, port_) {
    options_.url.port = std::to_string(port_);
    options_.timeout = std::chrono::seconds(30);
    options_.retry_for = std::chrono::seconds(5);
    for (size_t i = 0; i < flags.writers; ++i) writers_.emplace_back(i, flags.seed, options_);
    recreator_.emplace(options_);
  }

  void run() {
    start_ready();
    HttpClient client(options_);
    const auto made =
        client.call("POST", "/collections",
                    fmt::format("{{\"name\":\"{}\",\"dimension\":{}}}", kCollection, kDimension));
    if (!made.has_value() || made->status >= 300) throw Violation{"cannot create the collection"};
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
      applied += writer.doubts_applied;
      dropped += writer.doubts_dropped;
    }
    fmt::print(
        "{} kills ({} in recovery), {} writes acknowledged, {} refused, in doubt: {} applied, "
        "{} not; {} collections recreated; slowest start {} ms\n",
        kills_, kills_in_recovery_, acknowledged, refused, applied, dropped, recreator_->rounds(),
        slowest_start_ms_);
    std::fflush(stdout);
  }

 private:
  void write_until_killed() {
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (Writer& writer : writers_) threads.emplace_back([&writer, &stop] { writer.run(stop); });
    threads.emplace_back([this, &stop] { recreator_->run(stop); });
    std::this_thread::sleep_for(std::chrono::milliseconds(1 + rng_.below(flags_.alive_ms_max)));
    const std::string ended = server_.end_if_any();
    server_.kill_now();
    ++kills_;
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
      server_.start(kills_ % 2 == 1);
      std::this_thread::sleep_for(std::chrono::microseconds(rng_.below(40000)));
      const std::string ended = server_.end_if_any();
      if (!ended.empty()) throw Violation{"the server ended while recovering: " + ended};
      server_.kill_now();
      ++kills_;
      ++kills_in_recovery_;
    }
    start_ready();
  }

  void start_ready() {
    const auto begin = std::chrono::steady_clock::now();
    server_.start(kills_ % 2 == 1);
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
    const auto stored = read_all(client);
    for (const auto& [id, sequence] : stored) {
      if (id >= flags_.writers * kKeysPerWriter) {
        throw Violation{fmt::format("a phantom: id {} is nobody's", id)};
      }
    }
    uint64_t present = 0;
    for (Writer& writer : writers_) {
      writer.verify(stored);
      present += writer.present();
    }
    const uint64_t counted = count_all(client);
    if (counted != present) {
      throw Violation{fmt::format("count says {}, there are {}", counted, present)};
    }
    recreator_->verify(client);
  }

  const Flags& flags_;
  Rng rng_;
  const uint16_t port_;
  ServerProcess server_;
  ClientOptions options_;
  std::vector<Writer> writers_;
  std::optional<Recreator> recreator_;
  uint64_t kills_ = 0, kills_in_recovery_ = 0;
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
  CLI::App app("Kills the server in a loop and checks that nothing acknowledged is lost");
  app.add_option("BINARY", flags.binary, "The aionbd program")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option("--kills", flags.kills, "How often")->capture_default_str();
  app.add_option("--writers", flags.writers, "Threads that write")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--seed", flags.seed, "Repeats the choices of a run, not its timing");
  app.add_option("--alive-ms", flags.alive_ms_max, "Longest time between start and kill")
      ->check(CLI::Range(1, 600000))
      ->capture_default_str();
  app.add_flag("--keep", flags.keep, "Keep the data directory");
  CLI11_PARSE(app, argc, argv);
  signal(SIGPIPE, SIG_IGN);
  return aionbd::run(flags);
}
