// One collection: points of one dimension, written, read and searched.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "aionbd/filter.h"
#include "aionbd/options.h"
#include "aionbd/status.h"
#include "aionbd/types.h"

namespace aionbd {

struct CollectionInfo {
  std::string name;
  CollectionOptions options;
  uint64_t points_count = 0;
};

/// What an answer takes of the database's memory budget, given back when the last copy of the
/// answer is gone. Null without a budget.
using AnswerMemory = std::shared_ptr<void>;

struct UpsertResult {
  uint64_t created = 0;
  uint64_t updated = 0;
  /// created[i] for points[i]: true if the id was not there before the batch (and i is the first
  /// use of it in the batch).
  std::vector<bool> created_flags;
};

struct GetOptions {
  bool include_payload = true;
  bool include_values = true;
};

struct GetResult {
  std::vector<Point> points;     // in the order asked, found ones only
  std::vector<PointId> missing;  // in the order asked
  AnswerMemory memory;
};

/// A page of points in ascending id order.
struct ListRequest {
  uint64_t offset = 0;              // positions to skip; 0..kListOffsetMax; not with after_id
  std::optional<PointId> after_id;  // cursor: ids greater than this
  uint64_t limit = 100;             // >= 1
  const Filter* filter = nullptr;
  bool include_payload = false;
  bool include_values = false;
  Deadline deadline = kNoDeadline;
};

struct ListPage {
  std::vector<Point> points;
  uint64_t total = 0;  // live points of the collection (unfiltered)
  bool more = false;   // points remain after the last of this page
  AnswerMemory memory;
};

enum class SearchMode : uint8_t { kExact, kIvf, kGraph, kAuto };

/// Widest walk that may be asked for: beyond, reading everything is cheaper.
inline constexpr uint32_t kSearchParamMax = 4096;

/// What mode auto aims at when the caller names no target.
inline constexpr double kAutoTargetRecall = 0.95;

struct SearchRequest {
  std::span<const float> query;  // float[dimension], finite
  std::optional<Metric> metric;  // unset: the collection's, else dot
  uint32_t limit = 10;           // >= 1
  uint32_t offset = 0;           // best hits to skip
  SearchMode mode = SearchMode::kAuto;
  std::optional<double> target_recall;  // (0, 1]; mode auto: kAutoTargetRecall when unset
  /// Mode graph: the width of the walk (ef_search) instead of a calibrated one;
  /// 1..kSearchParamMax.
  std::optional<uint32_t> param;
  const Filter* filter = nullptr;
  std::optional<float> score_threshold;  // keeps >= for dot and cosine, <= for l2
  bool include_payload = true;
  bool include_values = false;
  bool explain = false;  // fill SearchResult::plan
  Deadline deadline = kNoDeadline;
};

/// What the planner did with one segment; for `explain`.
struct SegmentPlan {
  uint64_t segment_id = 0;
  std::string plan;  // "exact scan", "exact scan of matches", "open rows", ...
  uint64_t rows = 0;
  uint64_t candidates = 0;  // rows whose exact distance was computed
  uint64_t estimated = 0;   // rows whose distance was estimated or bounded from codes
};

struct SearchResult {
  Metric metric = Metric::kDot;
  SearchMode mode = SearchMode::kExact;  // what really ran
  std::optional<double> recall_at_k;     // 1.0 for exact; calibrated otherwise
  bool ivf_fallback_exact = false;       // ivf was asked, no index was ready, answered exactly
  std::vector<Hit> hits;                 // best first, ties by ascending id
  std::vector<SegmentPlan> plan;         // with `explain`
  uint64_t scan_us = 0;                  // with `explain`: finding the rows, filter included
  uint64_t fetch_us = 0;  // with `explain`: reading ids, payloads and values of the hits
  AnswerMemory memory;    // of a batch: the first result has it for all
};

/// Many queries that share everything but the vector.
struct SearchBatchRequest {
  std::vector<std::span<const float>> queries;
  SearchRequest common;  // `common.query` is not used
};

/// What a calibrated index finds at one setting, measured on held-out rows.
struct RecallCurvePoint {
  uint32_t k = 0;
  uint32_t ef = 0;
  double recall = 0;      // mean
  double recall_low = 0;  // lower 95 % confidence bound
};

/// One index of one segment.
struct IndexStats {
  Metric metric = Metric::kDot;
  std::string kind;   // "graph"
  std::string codec;  // what rows are coded as, and why
  uint64_t disk_bytes = 0;
  uint64_t hot_bytes = 0;  // read at random by searches: codes and edges
  /// Rows without a place in it: zero under cosine (never hits), not finite, or extremely long.
  uint64_t rows_outside = 0;
  std::vector<RecallCurvePoint> curve;
};

struct SegmentStats {
  uint64_t id = 0;
  bool sealed = false;
  /// What is read in place within the memory budget, the rest being copied from the files when
  /// needed: "all", "codes" (of the indexes) or "nothing".
  std::string in_place = "all";
  /// How the values of rows are kept: "f32", or "u8" or "i8" where all are integers that fit.
  std::string row_format = "f32";
  uint64_t rows = 0;
  uint64_t rows_deleted = 0;
  uint64_t disk_bytes = 0;
  uint64_t memory_bytes = 0;
  std::vector<IndexStats> indexes;
};

/// Estimate against truth: recent real queries, asked again exactly in idle time and compared with
/// what they are answered now. Queries that indexes answer only.
struct RecallAudit {
  uint64_t samples = 0;     // queries that the means are over; 0: nothing was audited yet
  double promised = 0;      // mean recall_at_k of their answers
  double measured = 0;      // mean share of the true hits in them
  double measured_low = 0;  // its 95 % confidence interval
  double measured_high = 0;
  uint64_t drifts = 0;      // times the truth fell below the promise
  uint64_t remeasured = 0;  // times a curve was measured again, for that or the opposite
  double age_seconds = 0;   // since the last audit
};

struct CollectionStats {
  CollectionInfo info;
  std::vector<SegmentStats> segments;
  uint64_t disk_bytes = 0;
  uint64_t memory_bytes = 0;
  uint64_t index_bytes = 0;  // on disk, all indexes
  RecallAudit audit;
};

/// An upsert that has its place in the log and is not yet as durable as promised, nor visible. It
/// takes place whether or not anybody asks. Thread safety: single owner; keeps the database open.
class PendingUpsert {
 public:
  /// Waits as `finish` does.
  virtual ~PendingUpsert() = default;

  /// True: `wait` returns at once. Cost: one load.
  virtual bool decided() const = 0;
  /// Returns when it is known what became of it. Whatever was begun before it is known, too.
  virtual void wait() = 0;
  /// What `upsert` returns, when it returns it: waits, and then does what maintenance is due. Once.
  virtual Result<UpsertResult> finish() = 0;
};

/// Thread safety: safe. Readers see one consistent state for the whole call and never wait for a
/// writer. A write returns when it is as durable as the database's `Durability` promises, and is
/// visible to every call that begins after that.
///
/// Errors of every call: resource_exhausted when memory, or the memory budget, does not suffice for
/// the work or the answer; not_found once the collection was dropped; unavailable after a failed
/// sync (writes) or at shutdown; corruption when stored bytes it needs are damaged.
class Collection {
 public:
  virtual ~Collection() = default;

  virtual CollectionInfo info() const = 0;

  /// Inserts or replaces `points` (values and payload whole), all or none, as one log record.
  /// A repeated id: the last one wins. Errors: invalid_argument (dimension, non-finite value in a
  /// strict collection, id of the wrong kind, bad payload), resource_exhausted (point cap, memory
  /// budget), deadline_exceeded, storage_full: nothing changed.
  virtual Result<UpsertResult> upsert(std::span<const Point> points,
                                      Deadline deadline = kNoDeadline) = 0;

  /// The first half of `upsert`, for callers with more writes in progress than threads: one thread
  /// that finishes a write makes all those durable that were begun before. Errors: as `upsert`,
  /// but those of the medium.
  virtual Result<std::unique_ptr<PendingUpsert>> begin_upsert(std::span<const Point> points,
                                                              Deadline deadline = kNoDeadline) = 0;

  /// Deletes the points that are there, all in one record; silent about missing ids.
  /// Returns how many were there.
  virtual Result<uint64_t> remove(std::span<const PointId> ids,
                                  Deadline deadline = kNoDeadline) = 0;
  /// Deletes every point that matches, in one record. Returns how many. Out of time while looking
  /// for them: deadline_exceeded, and nothing changed.
  virtual Result<uint64_t> remove_matching(const Filter& filter,
                                           Deadline deadline = kNoDeadline) = 0;

  /// Merges `keys` into the payload of each point. An unknown id: not_found and nothing changes.
  /// Returns how many points really changed.
  virtual Result<uint64_t> set_payload(std::span<const PointId> ids, const Payload& keys,
                                       Deadline deadline = kNoDeadline) = 0;
  /// Removes top-level keys from the payload of each point; as set_payload otherwise.
  virtual Result<uint64_t> delete_payload_keys(std::span<const PointId> ids,
                                               std::span<const std::string> keys,
                                               Deadline deadline = kNoDeadline) = 0;

  virtual Result<GetResult> get(std::span<const PointId> ids, const GetOptions& options) const = 0;
  /// Errors: invalid_argument, deadline_exceeded.
  virtual Result<ListPage> list(const ListRequest& request) const = 0;
  /// Live points, or those that match. Errors: invalid_argument, deadline_exceeded.
  /// Cost: O(1) without a filter.
  virtual Result<uint64_t> count(const Filter* filter, Deadline deadline = kNoDeadline) const = 0;

  /// The `limit` best points. Fewer only when fewer match. Errors: invalid_argument (dimension,
  /// non-finite or, for cosine, zero query; mode ivf with too few points), deadline_exceeded.
  virtual Result<SearchResult> search(const SearchRequest& request) const = 0;
  /// As `search` for each query, all against the same state; rows are read once for many queries.
  virtual Result<std::vector<SearchResult>> search_batch(
      const SearchBatchRequest& request) const = 0;

  virtual Result<CollectionStats> stats() const = 0;
  /// Seals the open rows, merges all segments into as few as possible and builds their indexes.
  /// Takes as long as that takes; writes go on meanwhile.
  virtual Status optimize() = 0;
};

}  // namespace aionbd
