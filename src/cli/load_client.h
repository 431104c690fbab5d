// Load whose every answer can be judged: the one oracle of `aionbd soak` and of the kill loop
// (test/kill).
//
// Each client owns a range of ids and has one request under way at a time, so for each of them it
// knows what the server acknowledged last and which single request, if any, was cut off. A vector
// spells its id and sequence number and a hash of them, and the payload says both again, so that a
// torn, mixed or invented row is recognised by itself, in whoever's range it is.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "aionbd/status.h"
#include "base/rng.h"
#include "cli/client.h"

namespace aionbd {

/// Id, two digits of the sequence number, and at least one number of hash.
inline constexpr uint32_t kLoadDimensionMin = 4;
/// f32 holds whole numbers below 2^24 exactly, and ids are spelled in one.
inline constexpr uint64_t kLoadIdsMax = uint64_t{1} << 24;

enum class LoadOp : uint8_t {
  kUpsert,
  kUpsertBatch,
  kDelete,
  kDeleteBatch,
  kSetPayload,
  kGet,
  kSearch,
};
inline constexpr size_t kLoadOpsCount = 7;
/// "upsert_batch".
std::string_view load_op_name(LoadOp op);

struct LoadOptions {
  std::string collection;
  uint32_t dimension = 8;
  uint64_t keys_each = 64;  // ids a client owns
  uint64_t batch_max = 16;  // ids of one batch; small, so that many fit between two kills
  std::array<uint32_t, kLoadOpsCount> weights = {40, 30, 15, 15, 0, 0, 0};
};

/// What a row of ours says of itself. Sequence 0: there is none.
struct LoadRow {
  uint64_t sequence = 0;
  uint64_t touched = 0;  // the number that payload changes set; 0: none did since the upsert
  friend bool operator==(const LoadRow&, const LoadRow&) = default;
};
using LoadRows = std::map<uint64_t, LoadRow>;  // by id

/// What all clients have begun and finished: what one may find of another's rows while that one
/// writes. Thread safety: safe.
class LoadBoard {
 public:
  explicit LoadBoard(uint64_t ids) : cells_(ids) {}

  struct Cell {
    std::atomic<uint64_t> begun{0};         // highest sequence number sent
    std::atomic<uint64_t> acknowledged{0};  // twice the highest acknowledged; odd: an upsert's
  };
  Cell& cell(uint64_t id) { return cells_[id]; }
  uint64_t ids() const { return cells_.size(); }

 private:
  std::vector<Cell> cells_;
};

/// How one request ended.
struct LoadStep {
  enum class Outcome : uint8_t {
    kDone,      // a right answer
    kRefused,   // 408, 429, 503 overloaded, 507: nothing changed
    kError,     // 5xx
    kNoAnswer,  // no connection, reset, timeout
    kWrong,     // an answer that must not be: `problem`
  };
  LoadOp op = LoadOp::kUpsert;
  Outcome outcome = Outcome::kDone;
  uint64_t us = 0;
  std::string problem;
};

/// Thread safety: single owner at a time.
class LoadClient {
 public:
  /// `board` has room for the ids of all clients and outlives them.
  LoadClient(const LoadOptions& options, uint64_t index, uint64_t seed, LoadBoard* board,
             ClientOptions connection);

  /// One request. REQUIRES: !in_doubt().
  LoadStep step();
  /// The outcome of the last write is unknown.
  bool in_doubt() const { return !in_doubt_.empty(); }
  /// The next request connects anew.
  void disconnect() { client_.reset(); }

  /// Holds everything that is stored against what may be stored; then that is what is known.
  /// Error: internal, with the first thing that is wrong.
  Status verify(const LoadRows& stored);
  /// The same for the ids in doubt alone, which are read. Errors: unavailable, too: no answer.
  Status settle();

  uint64_t present() const;  // ids known to be stored
  uint64_t doubts_applied() const { return doubts_applied_; }
  uint64_t doubts_dropped() const { return doubts_dropped_; }
  uint64_t hits_checked() const { return hits_checked_; }

 private:
  /// What a request would make of its ids.
  using Changes = std::vector<std::pair<uint64_t, LoadRow>>;

  uint64_t any_id() { return base_ + rng_.below(options_.keys_each); }
  std::vector<uint64_t> any_ids();
  std::vector<uint64_t> some_present_ids();
  LoadRow next_row() { return {++last_sequence_, 0}; }

  LoadStep write_one();
  LoadStep write_batch();
  LoadStep delete_one();
  LoadStep delete_batch();
  LoadStep set_payload();
  LoadStep get();
  LoadStep search();

  Result<ServerResponse> ask(std::string_view method, const std::string& target,
                             const std::string& body, LoadStep* step);
  LoadStep write(LoadOp op, std::string_view method, const std::string& target,
                 const std::string& body, Changes changes, bool may_be_missing = false);
  Status check_get(const std::string& body, const std::vector<uint64_t>& ids) const;
  Status check_hits(const std::string& body, const std::vector<float>& query, uint64_t limit,
                    const std::vector<uint64_t>& before, std::optional<uint64_t> wanted);
  Status verify_some(const std::vector<uint64_t>& ids, const LoadRows& stored);

  const LoadOptions& options_;
  const uint64_t base_;
  Rng rng_;
  LoadBoard* const board_;
  const ClientOptions connection_;
  std::optional<HttpClient> client_;
  uint64_t last_sequence_ = 0;
  LoadRows known_;  // every id of ours
  Changes in_doubt_;
  uint64_t doubts_applied_ = 0, doubts_dropped_ = 0, hits_checked_ = 0;
};

std::vector<float> load_vector(uint64_t id, uint64_t sequence, uint32_t dimension);
/// Everything in the collection, through the cursor. Errors: unavailable (no answer, or not 200);
/// internal: a row that is none of ours, or comes twice.
Result<LoadRows> read_load_rows(HttpClient& client, const LoadOptions& options);
/// `read_load_rows` against what all clients know, and against the server's own count.
/// Errors: as there; internal: what is wrong.
Status verify_load(HttpClient& client, const LoadOptions& options,
                   std::vector<std::unique_ptr<LoadClient>>& clients);
/// Makes the collection. Errors: already_exists, and what the server says.
Status create_load_collection(HttpClient& client, const LoadOptions& options,
                              std::string_view metric);

}  // namespace aionbd
