// One collection: the write path, and the views readers hold.
//
// The job: a write must be validated, put in the log, applied and made visible so that (a) the log
// order and the apply order agree, (b) nothing is visible before it is as durable as asked, (c) no
// reader waits, and each sees one consistent state, (d) a log that refuses a record (disk full)
// leaves no trace of it in memory.
//
// The outline:
//   under the write lock   resolve (which rows do these ids replace?), reserve memory, apply to the
//                          working state, append to the log, remember the resulting View as pending
//   without it             wait for the log (group commit)
//   under it again         publish the newest pending View that is committed
//
// A View is an immutable value that shares everything unchanged with the one before, so making one
// per write costs a copy of a few dozen pointers, and (c) and the atomicity of batches for readers
// come for free. For (d) the working state is thrown away and taken again from the published View;
// the open segment, which may hold rows of the failed writes, is retired (it takes no more rows)
// and a new one begun.
//
// Maintenance (maintenance.h) seals retired segments and merges sealed ones through freeze() and
// replace(): both only change how rows are represented, so replace() rewrites the working state,
// all pending views and the published one alike.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "aionbd/collection.h"
#include "base/mutex.h"
#include "base/published.h"
#include "engine/auditor_samples.h"
#include "engine/catalog.h"
#include "engine/context.h"
#include "engine/op.h"
#include "engine/open_segment.h"
#include "engine/sealed_segment.h"

namespace aionbd {

/// Rows read without an index between two words to the keeper of indexes: those of a thousand
/// searches over a thousand rows.
inline constexpr uint64_t kBareReadsStep = uint64_t{1} << 20;

/// Open rows without codes that are not worth any, and reads that cost as much as the codes of one
/// row: 50 ns against 3 us.
inline constexpr RowId kUncodedRowsMin = 64;
inline constexpr uint64_t kReadsPerCode = 60;

/// What freeze() hands to maintenance: everything not sealed, as it was at one moment.
struct FrozenRows {
  struct Part {
    SegmentView view;
    std::vector<Kill> kills;
  };
  std::vector<Part> parts;
  Ticket last;  // the last write in it
};

/// Thread safety: safe.
class StoredCollection final : public Collection,
                               public std::enable_shared_from_this<StoredCollection> {
 public:
  StoredCollection(std::shared_ptr<EngineContext> context, CollectionUid uid, std::string name,
                   CollectionOptions options);

  // ---- Collection ----
  CollectionInfo info() const override;
  Result<UpsertResult> upsert(std::span<const Point> points, Deadline deadline) override;
  Result<std::unique_ptr<PendingUpsert>> begin_upsert(std::span<const Point> points,
                                                      Deadline deadline) override;
  Result<uint64_t> remove(std::span<const PointId> ids, Deadline deadline) override;
  Result<uint64_t> remove_matching(const Filter& filter, Deadline deadline) override;
  Result<uint64_t> set_payload(std::span<const PointId> ids, const Payload& keys,
                               Deadline deadline) override;
  Result<uint64_t> delete_payload_keys(std::span<const PointId> ids,
                                       std::span<const std::string> keys,
                                       Deadline deadline) override;
  Result<GetResult> get(std::span<const PointId> ids, const GetOptions& options) const override;
  Result<ListPage> list(const ListRequest& request) const override;
  Result<uint64_t> count(const Filter* filter, Deadline deadline) const override;
  Result<SearchResult> search(const SearchRequest& request) const override;
  Result<std::vector<SearchResult>> search_batch(const SearchBatchRequest& request) const override;
  Result<CollectionStats> stats() const override;
  Status optimize() override;

  // ---- identity ----
  CollectionUid uid() const { return uid_; }
  const std::string& name() const { return name_; }
  const CollectionOptions& options() const { return options_; }
  uint64_t points_count() const { return published_.get()->points; }

  // ---- recovery, before the first reader ----
  /// Opens the sealed segments the catalog names. Errors: corruption.
  Status load(const std::vector<SegmentId>& segments, Lsn applied);
  /// Applies one replayed record, unless the sealed segments hold it already.
  Status replay(Lsn lsn, const UpsertOp& op);
  Status replay(Lsn lsn, const RemoveOp& op);
  void finish_recovery();
  /// From now on every call answers corruption with this reason; the files stay as they are.
  void quarantine(const std::string& reason) const;
  /// Empty when healthy.
  std::string quarantine_reason() const;

  // ---- maintenance, one thread at a time ----
  /// Retires the open segment. Nothing to seal: no parts.
  FrozenRows freeze();
  /// Publishes everything up to `last`. Errors: unavailable if those writes were rolled back.
  Status publish_frozen(const Ticket& last);
  /// Live rows as published that are not sealed yet.
  uint64_t unsealed_rows() const;
  /// Sealed segments as published.
  std::vector<SegmentView> sealed_segments() const;
  /// Puts `added` in the place of `removed` in every live view. `removed` are the views whose rows
  /// the first of `added`, if any, was made of; rows that died since are dead in it too.
  Status replace(const std::vector<SegmentView>& removed,
                 const std::vector<std::shared_ptr<const SealedSegment>>& added);
  /// Ok, or why nothing is to be built for it any more.
  Status alive() const;
  /// Metrics that indexes should be built for: the declared one, else those that were searched.
  std::vector<Metric> wanted_metrics() const;
  /// Whether filters were asked, so that field indexes are worth building.
  bool wants_fields() const { return filtered_.load(std::memory_order_relaxed); }
  /// Rows without an index that searches read since the last build began.
  uint64_t bare_reads() const { return bare_reads_.load(std::memory_order_relaxed); }
  void reset_bare_reads();
  /// Metrics, a bit each, for which searches would like codes of open rows; asks no more then.
  uint32_t take_asked_codes() const { return asked_codes_.exchange(0); }
  /// A filter was asked, or was before the last start.
  void note_filtered() const;
  /// The published view. Errors: corruption, not_found.
  Result<std::shared_ptr<const View>> current_view() const { return readable(); }
  /// Whether what was read of the view since `failures` maps had failed is to be believed.
  /// Errors: corruption, and the collection is quarantined: a segment file cannot be read;
  /// unavailable: an index could not, and is not used again. Cost: two calls, until a first file of
  /// the process fails.
  Status intact(const View& view, uint64_t failures) const;
  /// Queries kept for the auditor.
  QuerySamples& samples() const { return samples_; }
  /// Refuses everything from now on: the collection was dropped.
  void mark_dropped() EXCLUDES(mutex_);

  /// The state of the catalog, owned by maintenance (and recovery).
  struct Catalogued {
    std::vector<SegmentId> segments;
    Lsn applied = 0;  // the last record that those segments hold
    std::vector<CataloguedIndex> indexes;
  };
  Catalogued catalogued;

  /// The record that created it, and gives it its uid; the record's outcome decides whether the
  /// collection exists. Once, before anybody else knows it.
  void set_created(const Ticket& ticket) EXCLUDES(state_mutex_);
  Ticket create_ticket() const EXCLUDES(state_mutex_);
  /// The record that drops it, from when it is in the log until it is known to be refused.
  void set_drop_ticket(const std::optional<Ticket>& ticket) EXCLUDES(state_mutex_);
  std::optional<Ticket> drop_ticket() const EXCLUDES(state_mutex_);
  /// False until its create record is committed.
  std::atomic<bool> visible{false};

 private:
  /// A search that an index for this metric would have served.
  void note_searched(Metric metric) const;
  void tell_of_bare_reads() const;
  /// Asks for codes of open rows, when reading them has cost as much as that does.
  void tell_of_open_reads(const View& view, Metric metric, size_t queries) const;

  class UpsertInProgress;
  /// At its end, outside all locks: seals what open rows there are, when a write was refused
  /// because of the memory they hold, so that the next one finds room.
  struct SealAfterRefusal {
    ~SealAfterRefusal();
    EngineContext& context;
  };
  /// The uses of one id in a batch: the last one wins.
  struct Use {
    size_t first;
    size_t last;
  };
  /// For each id to write: where its live row is now.
  struct Resolved {
    std::vector<bool> exists;  // for each use
    std::vector<Kill> kills;
  };
  struct Pending {
    Ticket ticket;
    std::shared_ptr<const View> view;
  };

  /// The published view, or why the collection cannot be read.
  Result<std::shared_ptr<const View>> readable() const;
  /// Remembers damage met on the way, and passes it on.
  Status noted(Status status) const;
  template <typename T>
  Result<T> noted(Result<T> result) const {
    if (!result.has_value()) return noted(result.error());
    return result;
  }
  Status check_vector(std::span<const float> values, const char* field) const;
  Result<std::vector<SearchResult>> run_search(const std::vector<std::span<const float>>& queries,
                                               const SearchRequest& common) const;

  // The write path, in order.
  Status ready_to_write(Deadline deadline) REQUIRES(mutex_);
  static std::vector<Use> uses_of(std::span<const PointId> ids);
  Result<Resolved> resolve(std::span<const PointId> ids, std::span<const Use> uses) const
      REQUIRES(mutex_);
  Result<std::optional<Kill>> live_row(const PointId& id) const REQUIRES(mutex_);
  static uint64_t bytes_of(const UpsertOp& op, std::span<const Use> uses);
  Status reserve(const UpsertOp& op, std::span<const Use> uses, const Resolved& resolved)
      REQUIRES(mutex_);
  void apply_upsert(const UpsertOp& op, std::span<const Use> uses, const Resolved& resolved)
      REQUIRES(mutex_);
  void apply_remove(const Resolved& resolved) REQUIRES(mutex_);
  void kill_rows(const std::vector<Kill>& kills) REQUIRES(mutex_);
  Result<Ticket> log(std::string record, RecordEffect effect) REQUIRES(mutex_);
  Status finish_write(const Ticket& ticket) EXCLUDES(mutex_);
  /// Returns when it is known what becomes of a write. Ok: readers see it.
  Status decide(const Ticket& ticket) EXCLUDES(mutex_);
  /// The end of a call that may have found nothing to write: waits for `ticket` if it `wrote`, else
  /// for the write that its answer rests on.
  Status finish_change(bool wrote, const Ticket& ticket, const std::optional<Ticket>& rests_on)
      EXCLUDES(mutex_);
  /// `op` is decoded from `record`, which is moved into the log.
  Result<UpsertResult> upsert_locked(std::string& record, const UpsertOp& op,
                                     std::span<const Use> uses, Ticket* ticket) REQUIRES(mutex_);
  Result<uint64_t> remove_locked(std::span<const PointId> ids, std::span<const Use> uses,
                                 Ticket* ticket) REQUIRES(mutex_);
  /// An upsert up to its place in the log.
  Result<UpsertResult> begin(std::span<const Point> points, Deadline deadline, Ticket* ticket)
      EXCLUDES(mutex_);
  Result<uint64_t> remove_once(std::span<const PointId> ids, Deadline deadline) EXCLUDES(mutex_);
  Result<uint64_t> remove_matching_once(const Filter& filter, Deadline deadline) EXCLUDES(mutex_);
  /// The write that an answer of "nothing to do" rests on, if that is not committed yet: such an
  /// answer must not tell of what a crash could undo.
  std::optional<Ticket> pending_ticket() const REQUIRES(mutex_);
  Status check_id_types(std::span<const PointId> ids) const;
  template <typename Change>
  Result<uint64_t> change_payloads(std::span<const PointId> ids, Deadline deadline, Change change);

  void publish(std::shared_ptr<const View> view) REQUIRES(mutex_);
  void publish_through(const Ticket& ticket) REQUIRES(mutex_);
  void roll_back() REQUIRES(mutex_);
  /// Makes `view` the working state again, with a new open segment: what was applied since never
  /// happened. Changes nothing when memory runs out.
  void take_back_to(const View& view) REQUIRES(mutex_);
  /// The same for a write that ended in the middle of being applied, if one did.
  void mend() REQUIRES(mutex_);
  std::shared_ptr<OpenSegment> new_open_segment() const;
  void retire_open() REQUIRES(mutex_);
  /// Begins another open segment when this one would hold too many rows.
  void keep_open_small(size_t more_rows) REQUIRES(mutex_);
  std::shared_ptr<const View> snapshot() REQUIRES(mutex_);
  Result<View> replaced(const View& view, const std::vector<SegmentView>& removed,
                        const std::vector<std::shared_ptr<const SealedSegment>>& added) const;

  // Constant after construction.
  const std::shared_ptr<EngineContext> context_;
  CollectionUid uid_;  // 0 until the create record has its place
  const std::string name_;
  const CollectionOptions options_;
  /// Rows of one open segment at most, so that what is sealed is not too large to be indexed within
  /// the memory budget; with one, also the open rows above which a checkpoint is due.
  const uint64_t seal_rows_;

  // Own synchronisation.
  Published<View> published_;
  mutable std::atomic<bool> quarantined_{false};
  std::atomic<bool> dropped_{false};
  mutable std::atomic<uint32_t> searched_metrics_{0};  // a bit per metric
  mutable std::atomic<bool> filtered_{false};
  mutable std::atomic<uint64_t> bare_reads_{0};
  mutable std::atomic<uint64_t> bare_reads_due_{kBareReadsStep};
  mutable std::atomic<uint64_t> open_reads_{
      0};  // of rows without codes, since codes were asked for
  mutable std::atomic<uint32_t> asked_codes_{0};
  mutable QuerySamples samples_;

  /// The write lock. Order: engine's name map, this, storage's log lock.
  mutable Mutex mutex_;
  View working_ GUARDED_BY(mutex_);  // applied, perhaps not committed
  std::shared_ptr<OpenSegment> open_ GUARDED_BY(mutex_);
  /// Memory ran out while a write was applied: the working state is to be taken back first.
  bool torn_ GUARDED_BY(mutex_) = false;
  /// Kills by unsealed segments, by segment id in the order of working_.segments.
  std::vector<std::pair<SegmentId, std::vector<Kill>>> kills_ GUARDED_BY(mutex_);
  std::deque<Pending> pending_ GUARDED_BY(mutex_);
  Ticket last_ GUARDED_BY(mutex_);  // of the newest applied write
  /// Of the newest published write. Changed under mutex_ only, after the view.
  std::atomic<Lsn> published_lsn_ = 0;
  uint64_t generation_ GUARDED_BY(mutex_) = 0;

  mutable Mutex state_mutex_;
  mutable std::string reason_ GUARDED_BY(state_mutex_);
  Ticket create_ticket_ GUARDED_BY(state_mutex_);
  std::optional<Ticket> drop_ticket_ GUARDED_BY(state_mutex_);
};

}  // namespace aionbd
