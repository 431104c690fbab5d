#include "engine/stored_collection.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "engine/answer_account.h"
#include "engine/on_reserve.h"
#include "engine/pinning.h"
#include "engine/reader.h"
#include "engine/search.h"
#include "payload/payload.h"

namespace aionbd {

namespace {

const std::shared_ptr<const DeadRows>& no_dead_rows() {
  static const auto none = std::make_shared<const DeadRows>();
  return none;
}

}  // namespace

StoredCollection::StoredCollection(std::shared_ptr<EngineContext> context, CollectionUid uid,
                                   std::string name, CollectionOptions options)
    : context_(std::move(context)),
      uid_(uid),
      name_(std::move(name)),
      options_(options),
      seal_rows_(mergeable_rows_max(context_->budget.limit(), options_.dimension) / 2),
      samples_(&context_->budget) {
  MutexLock lock(mutex_);
  generation_ = context_->storage->generation();
  retire_open();
  publish(snapshot());
}

CollectionInfo StoredCollection::info() const {
  return {name_, options_, points_count()};
}

// ---- damage -------------------------------------------------------------------------------------

void StoredCollection::quarantine(const std::string& reason) const {
  MutexLock lock(state_mutex_);
  if (quarantined_.exchange(true)) return;
  reason_ = reason;
  context_->logger.error("engine: collection quarantined name=" + name_ + " reason=" + reason);
}

std::string StoredCollection::quarantine_reason() const {
  MutexLock lock(state_mutex_);
  return reason_;
}

void StoredCollection::set_created(const Ticket& ticket) {
  uid_ = ticket.lsn;
  MutexLock lock(state_mutex_);
  create_ticket_ = ticket;
}

Ticket StoredCollection::create_ticket() const {
  MutexLock lock(state_mutex_);
  return create_ticket_;
}

void StoredCollection::set_drop_ticket(const std::optional<Ticket>& ticket) {
  MutexLock lock(state_mutex_);
  drop_ticket_ = ticket;
}

std::optional<Ticket> StoredCollection::drop_ticket() const {
  MutexLock lock(state_mutex_);
  return drop_ticket_;
}

Status StoredCollection::noted(Status status) const {
  if (status.code() == Code::kCorruption) quarantine(status.message());
  if (status.code() == Code::kIoError) {
    // A read of a file that cannot be read marks the file, as a fault in its map does.
    const Status files = intact(*published_.get(), context_->storage->map_failures());
    if (!files.ok()) return files;
  }
  return status;
}

Status StoredCollection::intact(const View& view, uint64_t failures) const {
  const uint64_t now = context_->storage->map_failures();
  if (now == 0) [[likely]]
    return {};
  for (const SegmentView& part : view.segments) {
    if (part.segment->failed()) {
      return noted(corruption("segment " + std::to_string(part.segment->id()) +
                              " cannot be read: its file is shorter than it was, or the medium "
                              "refuses"));
    }
    if (now != failures && part.segment->index_failed()) {
      context_->index_wanted();
      return unavailable("an index became unreadable during the request: repeat it");
    }
  }
  return {};
}

Result<std::shared_ptr<const View>> StoredCollection::readable() const {
  if (quarantined_.load(std::memory_order_relaxed)) {
    return corruption("collection is quarantined: its files are damaged");
  }
  if (dropped_.load(std::memory_order_acquire)) return not_found("collection was deleted");
  return published_.get();
}

void StoredCollection::mark_dropped() {
  MutexLock lock(mutex_);
  dropped_.store(true, std::memory_order_release);
}

// ---- the write path -----------------------------------------------------------------------------

Status StoredCollection::ready_to_write(Deadline deadline) {
  if (quarantined_.load(std::memory_order_relaxed)) {
    return corruption("collection is quarantined: its files are damaged");
  }
  if (dropped_.load(std::memory_order_acquire)) return not_found("collection was deleted");
  RETURN_IF_ERROR(context_->storage->health());
  mend();
  if (context_->storage->generation() != generation_) roll_back();
  if (deadline != kNoDeadline && context_->clock->now() >= deadline) {
    return deadline_exceeded("request timed out before the write began");
  }
  return {};
}

Result<std::optional<Kill>> StoredCollection::live_row(const PointId& id) const {
  // Newest first: what was written last is most likely to be written again.
  for (size_t i = working_.segments.size(); i-- > 0;) {
    const SegmentView& view = working_.segments[i];
    ASSIGN_OR_RETURN(const std::optional<RowId> row, view.segment->find(id, view.rows));
    if (row && !view.dead->contains(*row)) {
      return std::optional<Kill>(Kill{view.segment->id(), *row});
    }
  }
  return std::optional<Kill>();
}

/// In the order of the last uses. By sorting, because ids are the client's: no choice of them makes
/// it slower.
std::vector<StoredCollection::Use> StoredCollection::uses_of(std::span<const PointId> ids) {
  std::vector<size_t> order(ids.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const std::strong_ordering by_id = ids[a] <=> ids[b];
    return by_id != std::strong_ordering::equal ? by_id < 0 : a < b;
  });
  std::vector<Use> out;
  out.reserve(ids.size());
  for (const size_t i : order) {
    if (!out.empty() && ids[out.back().last] == ids[i]) {
      out.back().last = i;
    } else {
      out.push_back({i, i});
    }
  }
  std::sort(out.begin(), out.end(), [](const Use& a, const Use& b) { return a.last < b.last; });
  return out;
}

Result<StoredCollection::Resolved> StoredCollection::resolve(std::span<const PointId> ids,
                                                             std::span<const Use> uses) const {
  const uint64_t failures = context_->storage->map_failures();
  Resolved out;
  out.exists.reserve(uses.size());
  for (const Use& use : uses) {
    ASSIGN_OR_RETURN(const std::optional<Kill> old, live_row(ids[use.last]));
    out.exists.push_back(old.has_value());
    if (old) out.kills.push_back(*old);
  }
  RETURN_IF_ERROR(intact(working_, failures));
  return out;
}

uint64_t StoredCollection::bytes_of(const UpsertOp& op, std::span<const Use> uses) {
  uint64_t bytes = 0;
  for (const Use& use : uses) {
    bytes += OpenSegment::row_bytes(op.dimension, op.ids[use.last].text().size(),
                                    op.payloads[use.last].size());
  }
  return bytes;
}

Status StoredCollection::reserve(const UpsertOp& op, std::span<const Use> uses,
                                 const Resolved& resolved) {
  const uint64_t created = uses.size() - resolved.kills.size();
  const uint64_t cap = context_->options.points_per_collection_max;
  if (created > 0 && working_.points + created > cap) {
    return resource_exhausted("collection is at its cap of " + std::to_string(cap) +
                              " points: holds " + std::to_string(working_.points) + ", adding " +
                              std::to_string(created));
  }
  const uint64_t bytes = bytes_of(op, uses);
  if (!context_->budget.try_reserve(bytes)) {
    context_->sealing_wanted.store(true, std::memory_order_relaxed);
    return resource_exhausted("memory budget of " + std::to_string(context_->budget.limit()) +
                              " bytes is used up: " + std::to_string(context_->budget.used()) +
                              " held, " + std::to_string(bytes) + " more needed");
  }
  open_->adopt_reservation(bytes);
  return {};
}

namespace {

/// However few writes there were since the last one.
void make_checkpoint_due(EngineContext& context) {
  uint64_t writes = context.writes_since_checkpoint.load(std::memory_order_relaxed);
  const uint64_t due = context.options.checkpoint_interval;
  while (writes < due && !context.writes_since_checkpoint.compare_exchange_weak(writes, due)) {
  }
}

}  // namespace

StoredCollection::SealAfterRefusal::~SealAfterRefusal() {
  if (!context.sealing_wanted.load(std::memory_order_relaxed)) return;
  context.sealing_wanted.store(false, std::memory_order_relaxed);
  make_checkpoint_due(context);
  context.after_write();  // does not throw
}

void StoredCollection::kill_rows(const std::vector<Kill>& kills) {
  std::vector<RowId> rows;
  for (SegmentView& view : working_.segments) {
    rows.clear();
    for (const Kill& kill : kills) {
      if (kill.segment == view.segment->id()) rows.push_back(kill.row);
    }
    if (rows.empty()) continue;
    view.dead = std::make_shared<const DeadRows>(view.dead->with(rows));
    // A segment's own dead rows are simply not sealed; only other segments' must be remembered.
    if (view.segment->id() == open_->id()) continue;
    for (const RowId row : rows) kills_.back().second.push_back({view.segment->id(), row});
  }
  working_.points -= kills.size();
}

void StoredCollection::apply_upsert(const UpsertOp& op, std::span<const Use> uses,
                                    const Resolved& resolved) {
  kill_rows(resolved.kills);
  for (const Use& use : uses) {
    open_->append(op.ids[use.last], op.row(use.last), op.payloads[use.last]);
  }
  working_.points += uses.size();
  SegmentView& view = working_.segments.back();
  view.rows = open_->rows_appended();
  view.kills_count = kills_.back().second.size();
}

void StoredCollection::apply_remove(const Resolved& resolved) {
  kill_rows(resolved.kills);
  working_.segments.back().kills_count = kills_.back().second.size();
}

Result<Ticket> StoredCollection::log(std::string record, RecordEffect effect) {
  std::shared_ptr<const View> view = snapshot();
  // The place in the line of pending views comes before the record, so that nothing can fail after
  // it.
  pending_.push_back({});
  const uint64_t generation = generation_;
  const Result<Ticket> ticket = within_memory(
      [&] { return context_->storage->append(std::move(record), generation, effect); });
  if (!ticket) {
    pending_.pop_back();
    const Code code = ticket.error().code();
    if (code == Code::kStorageFull || code == Code::kResourceExhausted) {
      // This record alone is refused; what is pending goes on.
      torn_ = true;
      mend();
      return ticket.error();
    }
    roll_back();
    if (ticket.error().code() != Code::kFailedPrecondition) return ticket.error();
    return storage_full("the log was refused space a moment ago; repeat the request");
  }
  last_ = *ticket;
  pending_.back() = {*ticket, std::move(view)};
  return ticket;
}

Status StoredCollection::finish_write(const Ticket& ticket) {
  RETURN_IF_ERROR(decide(ticket));
  context_->metrics.writes.add();
  context_->writes_since_checkpoint.fetch_add(1, std::memory_order_relaxed);
  // What a checkpoint seals must fit in the reserve, and what a start replays is bounded.
  if (context_->storage->metrics().wal_file_bytes.value() > context_->log_bytes_max()) {
    make_checkpoint_due(*context_);
  }
  // What is open counts in full, what is sealed hardly.
  if (context_->budget.limit() != 0 && unsealed_rows() > seal_rows_) make_checkpoint_due(*context_);
  context_->after_write();
  return {};
}

Status StoredCollection::finish_change(bool wrote, const Ticket& ticket,
                                       const std::optional<Ticket>& rests_on) {
  if (wrote) return finish_write(ticket);
  // The answer tells of that write, so it must be visible, too: its own caller may be late.
  return rests_on ? decide(*rests_on) : Status();
}

Status StoredCollection::decide(const Ticket& ticket) {
  Lsn committed_through = 0;
  const Status committed = context_->storage->commit(ticket, &committed_through);
  // The first thread of a group publishes for all of it; the others do not queue for the lock.
  if (committed.ok() && published_lsn_.load() >= ticket.lsn) return committed;
  MutexLock lock(mutex_);
  if (committed.ok()) {
    publish_through({committed_through, ticket.generation});
  } else if (context_->storage->generation() != generation_) {
    // Without memory now, the next write does it.
    as_memory_allows([this]() NO_THREAD_SAFETY_ANALYSIS { roll_back(); });
  }
  return committed;
}

/// What readers see from now on.
void StoredCollection::publish(std::shared_ptr<const View> view) {
  if (view->points >= kIndexRowsAsked) {
    context_->rows_to_index.store(true, std::memory_order_relaxed);
  }
  published_.set(std::move(view));
}

void StoredCollection::publish_through(const Ticket& ticket) {
  std::shared_ptr<const View> latest;
  Lsn latest_lsn = 0;
  while (!pending_.empty() && pending_.front().ticket.generation == ticket.generation &&
         pending_.front().ticket.lsn <= ticket.lsn) {
    latest = std::move(pending_.front().view);
    latest_lsn = pending_.front().ticket.lsn;
    pending_.pop_front();
  }
  if (latest == nullptr) return;
  publish(std::move(latest));
  published_lsn_ = latest_lsn;  // last: who reads it without the lock relies on the view
}

void StoredCollection::roll_back() {
  const uint64_t generation = context_->storage->generation();
  // The outcomes of an old generation are known, so commit answers at once. Writes of the current
  // one are here after a failed sync only; those before it are committed.
  std::shared_ptr<const View> latest;
  Lsn latest_lsn = published_lsn_;
  for (const Pending& pending : pending_) {
    const bool committed = pending.ticket.generation == generation
                               ? pending.ticket.lsn <= context_->storage->committed_lsn()
                               : context_->storage->commit(pending.ticket).ok();
    if (!committed) break;
    latest = pending.view;
    latest_lsn = pending.ticket.lsn;
  }
  take_back_to(latest == nullptr ? *published_.get() : *latest);
  // Nothing below allocates.
  pending_.clear();
  generation_ = generation;
  last_ = {latest_lsn, generation_};
  if (latest != nullptr) publish(std::move(latest));
  published_lsn_ = latest_lsn;
}

void StoredCollection::take_back_to(const View& view) {
  View working = view;
  // Kills by writes that never happened are forgotten with them.
  std::vector<std::pair<SegmentId, std::vector<Kill>>> kept;
  for (const SegmentView& part : working.segments) {
    for (const auto& [segment, kills] : kills_) {
      if (segment != part.segment->id()) continue;
      const size_t count = std::min(kills.size(), part.kills_count);
      kept.emplace_back(segment,
                        std::vector<Kill>(kills.begin(), kills.begin() + static_cast<long>(count)));
    }
  }
  std::shared_ptr<OpenSegment> open = new_open_segment();
  kept.emplace_back(open->id(), std::vector<Kill>());
  working.segments.push_back({open, 0, no_dead_rows(), 0});
  // Nothing below allocates.
  working_ = std::move(working);
  kills_ = std::move(kept);
  open_ = std::move(open);
  torn_ = false;
}

void StoredCollection::mend() {
  if (!torn_) return;
  // Writes that are in the log and wait for it stay.
  take_back_to(pending_.empty() ? *published_.get() : *pending_.back().view);
}

std::shared_ptr<OpenSegment> StoredCollection::new_open_segment() const {
  return std::make_shared<OpenSegment>(context_->new_segment_id(), options_.dimension,
                                       options_.id_type, &context_->budget);
}

void StoredCollection::retire_open() {
  std::shared_ptr<OpenSegment> open = new_open_segment();
  kills_.reserve(kills_.size() + 1);
  working_.segments.reserve(working_.segments.size() + 1);
  // Nothing below allocates.
  kills_.emplace_back(open->id(), std::vector<Kill>());
  working_.segments.push_back({open, 0, no_dead_rows(), 0});
  open_ = std::move(open);
}

void StoredCollection::keep_open_small(size_t more_rows) {
  const uint64_t rows = open_->rows_appended();
  if (rows > 0 && rows + more_rows > seal_rows_) retire_open();
}

std::shared_ptr<const View> StoredCollection::snapshot() {
  return std::make_shared<const View>(working_);
}

Result<UpsertResult> StoredCollection::upsert_locked(std::string& record, const UpsertOp& op,
                                                     std::span<const Use> uses, Ticket* ticket) {
  const MonotonicTime start = context_->clock->now();
  keep_open_small(uses.size());
  ASSIGN_OR_RETURN(const Resolved resolved, noted(resolve(op.ids, uses)));
  // The answer is made before the write: nothing can fail when that is done.
  UpsertResult out;
  out.created_flags.resize(op.ids.size());
  out.updated = resolved.kills.size();
  out.created = uses.size() - resolved.kills.size();
  for (size_t i = 0; i < uses.size(); ++i) out.created_flags[uses[i].first] = !resolved.exists[i];
  RETURN_IF_ERROR(reserve(op, uses, resolved));
  torn_ = true;  // until it is in the log
  apply_upsert(op, uses, resolved);
  ASSIGN_OR_RETURN(*ticket, log(std::move(record), RecordEffect::kAdds));
  torn_ = false;
  context_->metrics.write_apply_time.observe_us(elapsed_us(start, context_->clock->now()));
  return out;
}

Result<UpsertResult> StoredCollection::upsert(std::span<const Point> points, Deadline deadline) {
  return entered(*context_, [&]() -> Result<UpsertResult> {
    Ticket ticket;
    ASSIGN_OR_RETURN(UpsertResult out, begin(points, deadline, &ticket));
    RETURN_IF_ERROR(finish_write(ticket));
    return out;
  });
}

class StoredCollection::UpsertInProgress final : public PendingUpsert {
 public:
  explicit UpsertInProgress(std::shared_ptr<StoredCollection> collection)
      : collection_(std::move(collection)), scope_(*collection_->context_) {}
  ~UpsertInProgress() override {
    if (begun_) static_cast<void>(finish());
  }

  Status begin(std::span<const Point> points, Deadline deadline) {
    RETURN_IF_ERROR(scope_.status());
    ASSIGN_OR_RETURN(out_, collection_->begin(points, deadline, &ticket_));
    begun_ = true;
    return {};
  }
  bool decided() const override { return collection_->published_lsn_.load() >= ticket_.lsn; }
  void wait() override {
    // What came of it, `finish` asks again.
    as_memory_allows([this] { static_cast<void>(collection_->decide(ticket_)); });
  }
  Result<UpsertResult> finish() override {
    DCHECK_TRUE(begun_);
    begun_ = false;
    return within_memory([this]() -> Result<UpsertResult> {
      RETURN_IF_ERROR(collection_->finish_write(ticket_));
      return std::move(out_);
    });
  }

 private:
  const std::shared_ptr<StoredCollection> collection_;
  const CallScope scope_;
  bool begun_ = false;  // and not finished
  Ticket ticket_;
  UpsertResult out_;
};

Result<std::unique_ptr<PendingUpsert>> StoredCollection::begin_upsert(std::span<const Point> points,
                                                                      Deadline deadline) {
  return within_memory([&]() -> Result<std::unique_ptr<PendingUpsert>> {
    auto pending = std::make_unique<UpsertInProgress>(shared_from_this());
    RETURN_IF_ERROR(pending->begin(points, deadline));
    return std::unique_ptr<PendingUpsert>(std::move(pending));
  });
}

Result<UpsertResult> StoredCollection::begin(std::span<const Point> points, Deadline deadline,
                                             Ticket* ticket) {
  if (points.empty()) return invalid_argument("points must not be empty");
  ASSIGN_OR_RETURN(std::string record, encode_upsert(uid_, options_, points));
  ASSIGN_OR_RETURN(const Op decoded, decode_op(as_bytes_of(record)));
  const UpsertOp& op = std::get<UpsertOp>(decoded);
  const std::vector<Use> uses = uses_of(op.ids);
  RETURN_IF_ERROR(context_->storage->admit_growth());
  const SealAfterRefusal sealing{*context_};
  MutexLock lock(mutex_);
  RETURN_IF_ERROR(ready_to_write(deadline));
  return upsert_locked(record, op, uses, ticket);
}

std::optional<Ticket> StoredCollection::pending_ticket() const {
  return pending_.empty() ? std::nullopt : std::optional<Ticket>(pending_.back().ticket);
}

Status StoredCollection::check_id_types(std::span<const PointId> ids) const {
  for (const PointId& id : ids) {
    if (id.type() != options_.id_type) {
      return invalid_argument("ids must be of the collection's id type");
    }
  }
  return {};
}

Result<uint64_t> StoredCollection::remove_locked(std::span<const PointId> ids,
                                                 std::span<const Use> uses, Ticket* ticket) {
  ASSIGN_OR_RETURN(const Resolved resolved, noted(resolve(ids, uses)));
  if (resolved.kills.empty()) return uint64_t{0};
  std::vector<PointId> present;
  for (size_t i = 0; i < uses.size(); ++i) {
    if (resolved.exists[i]) present.push_back(ids[uses[i].last]);
  }
  std::string record = encode_remove(uid_, options_.id_type, present);
  if (record.size() > kRecordBytesMax) {
    return invalid_argument("ids: one delete takes at most " + std::to_string(kRecordBytesMax) +
                            " bytes of ids: got " + std::to_string(record.size()));
  }
  torn_ = true;  // until it is in the log
  apply_remove(resolved);
  ASSIGN_OR_RETURN(*ticket, log(std::move(record), RecordEffect::kFrees));
  torn_ = false;
  return static_cast<uint64_t>(resolved.kills.size());
}

Result<uint64_t> StoredCollection::remove(std::span<const PointId> ids, Deadline deadline) {
  return entered(*context_, [&]() -> Result<uint64_t> {
    RETURN_IF_ERROR(check_id_types(ids));
    return on_reserve_after_jobs(*context_, [&] { return remove_once(ids, deadline); });
  });
}

Result<uint64_t> StoredCollection::remove_once(std::span<const PointId> ids, Deadline deadline) {
  const std::vector<Use> uses = uses_of(ids);
  Ticket ticket;
  std::optional<Ticket> rests_on;
  uint64_t removed = 0;
  {
    MutexLock lock(mutex_);
    RETURN_IF_ERROR(ready_to_write(deadline));
    rests_on = pending_ticket();
    ASSIGN_OR_RETURN(removed, remove_locked(ids, uses, &ticket));
  }
  RETURN_IF_ERROR(finish_change(removed > 0, ticket, rests_on));
  return removed;
}

Result<uint64_t> StoredCollection::remove_matching(const Filter& filter, Deadline deadline) {
  return entered(*context_, [&] {
    return on_reserve_after_jobs(*context_, [&] { return remove_matching_once(filter, deadline); });
  });
}

Result<uint64_t> StoredCollection::remove_matching_once(const Filter& filter, Deadline deadline) {
  Ticket ticket;
  std::optional<Ticket> rests_on;
  uint64_t removed = 0;
  {
    MutexLock lock(mutex_);
    RETURN_IF_ERROR(ready_to_write(deadline));
    rests_on = pending_ticket();
    note_filtered();
    ScanDeadline limit(*context_->clock, deadline);
    const uint64_t failures = context_->storage->map_failures();
    ASSIGN_OR_RETURN(const std::vector<PointId> ids,
                     noted(matching_ids(working_, options_.id_type, filter, limit)));
    RETURN_IF_ERROR(intact(working_, failures));
    ASSIGN_OR_RETURN(removed, remove_locked(ids, uses_of(ids), &ticket));
  }
  RETURN_IF_ERROR(finish_change(removed > 0, ticket, rests_on));
  return removed;
}

template <typename Change>
Result<uint64_t> StoredCollection::change_payloads(std::span<const PointId> ids, Deadline deadline,
                                                   Change change) {
  RETURN_IF_ERROR(check_id_types(ids));
  const std::vector<Use> uses = uses_of(ids);
  // The record carries whole points (replay must not need the old copy), so it bounds the call.
  const uint64_t row_bytes = uint64_t{options_.dimension} * sizeof(float);
  if (uses.size() > kRecordBytesMax / row_bytes) {
    return invalid_argument("points: one change takes at most " +
                            std::to_string(kRecordBytesMax / row_bytes) + " points: got " +
                            std::to_string(uses.size()));
  }
  RETURN_IF_ERROR(context_->storage->admit_growth());
  Ticket ticket;
  std::optional<Ticket> rests_on;
  std::optional<PointId> unknown;
  std::vector<Point> changed;
  const SealAfterRefusal sealing{*context_};
  {
    MutexLock lock(mutex_);
    RETURN_IF_ERROR(ready_to_write(deadline));
    rests_on = pending_ticket();
    for (const Use& use : uses) {
      ASSIGN_OR_RETURN(std::optional<Point> point,
                       noted(read_point(working_, options_, ids[use.last], GetOptions{})));
      if (!point) {
        unknown = ids[use.last];
        break;
      }
      Payload before = point->payload;
      change(point->payload);
      if (point->payload != before) changed.push_back(std::move(*point));
    }
    if (!unknown && !changed.empty()) {
      ASSIGN_OR_RETURN(std::string record, encode_upsert(uid_, options_, changed));
      ASSIGN_OR_RETURN(const Op decoded, decode_op(as_bytes_of(record)));
      const UpsertOp& op = std::get<UpsertOp>(decoded);
      ASSIGN_OR_RETURN(const UpsertResult result,
                       upsert_locked(record, op, uses_of(op.ids), &ticket));
      CHECK_EQ(result.created, uint64_t{0});
    }
  }
  RETURN_IF_ERROR(finish_change(!unknown && !changed.empty(), ticket, rests_on));
  if (unknown) return not_found("point does not exist: " + unknown->to_string());
  return static_cast<uint64_t>(changed.size());
}

Result<uint64_t> StoredCollection::set_payload(std::span<const PointId> ids, const Payload& keys,
                                               Deadline deadline) {
  return entered(*context_, [&]() -> Result<uint64_t> {
    const Result<std::string> encoded = encode_payload(keys);
    if (!encoded) return encoded.error();
    return change_payloads(ids, deadline, [&](Payload& payload) {
      for (const auto& [key, value] : keys) payload.insert_or_assign(key, value);
    });
  });
}

Result<uint64_t> StoredCollection::delete_payload_keys(std::span<const PointId> ids,
                                                       std::span<const std::string> keys,
                                                       Deadline deadline) {
  return entered(*context_, [&] {
    return change_payloads(ids, deadline, [&](Payload& payload) {
      for (const std::string& key : keys) payload.erase(key);
    });
  });
}

// ---- reads --------------------------------------------------------------------------------------

Result<GetResult> StoredCollection::get(std::span<const PointId> ids,
                                        const GetOptions& options) const {
  return entered(*context_, [&]() -> Result<GetResult> {
    const uint64_t failures = context_->storage->map_failures();
    ASSIGN_OR_RETURN(const std::shared_ptr<const View> view, readable());
    GetResult out;
    AnswerAccount account(context_);
    RETURN_IF_ERROR(check_id_types(ids));
    for (const PointId& id : ids) {
      ASSIGN_OR_RETURN(std::optional<Point> point,
                       noted(read_point(*view, options_, id, options, &account)));
      if (point) {
        out.points.push_back(std::move(*point));
      } else {
        out.missing.push_back(id);
      }
    }
    RETURN_IF_ERROR(intact(*view, failures));
    out.memory = account.take();
    return out;
  });
}

Result<ListPage> StoredCollection::list(const ListRequest& request) const {
  return entered(*context_, [&]() -> Result<ListPage> {
    const uint64_t failures = context_->storage->map_failures();
    ASSIGN_OR_RETURN(const std::shared_ptr<const View> view, readable());
    if (request.filter != nullptr) note_filtered();
    ScanDeadline limit(*context_->clock, request.deadline);
    AnswerAccount account(context_);
    ASSIGN_OR_RETURN(ListPage page, noted(list_points(*view, options_, request, limit, &account)));
    RETURN_IF_ERROR(intact(*view, failures));
    page.memory = account.take();
    return page;
  });
}

Result<uint64_t> StoredCollection::count(const Filter* filter, Deadline deadline) const {
  return entered(*context_, [&]() -> Result<uint64_t> {
    const uint64_t failures = context_->storage->map_failures();
    ASSIGN_OR_RETURN(const std::shared_ptr<const View> view, readable());
    if (filter == nullptr) return view->points;
    note_filtered();
    ScanDeadline limit(*context_->clock, deadline);
    ASSIGN_OR_RETURN(const uint64_t count, noted(count_matching(*view, *filter, limit)));
    RETURN_IF_ERROR(intact(*view, failures));
    return count;
  });
}

Result<SearchResult> StoredCollection::search(const SearchRequest& request) const {
  return entered(*context_, [&]() -> Result<SearchResult> {
    ASSIGN_OR_RETURN(std::vector<SearchResult> results, run_search({request.query}, request));
    return std::move(results.front());
  });
}

Result<std::vector<SearchResult>> StoredCollection::search_batch(
    const SearchBatchRequest& request) const {
  if (request.queries.empty()) return invalid_argument("queries must not be empty");
  return entered(*context_, [&] { return run_search(request.queries, request.common); });
}

Result<std::vector<SearchResult>> StoredCollection::run_search(
    const std::vector<std::span<const float>>& queries, const SearchRequest& common) const {
  const uint64_t failures = context_->storage->map_failures();
  ASSIGN_OR_RETURN(const std::shared_ptr<const View> view, readable());
  const MonotonicTime start = context_->clock->now();
  // Candidates of all queries are kept at once, two for each hit wanted, and some.
  constexpr uint64_t kCandidateBytes = 64;
  AnswerAccount account(context_);
  const uint64_t depth = std::min<uint64_t>(uint64_t{common.offset} + common.limit, view->points);
  RETURN_IF_ERROR(account.add(queries.size() * depth * kCandidateBytes));
  const SearchEnvironment environment{*context_->clock, *context_->pool,
                                      context_->options.ivf_nprobe_default, &bare_reads_, &account};
  ASSIGN_OR_RETURN(std::vector<SearchResult> out,
                   noted(search_view(environment, *view, options_, queries, common)));
  tell_of_bare_reads();
  RETURN_IF_ERROR(intact(*view, failures));
  out.front().memory = account.take();
  // Only what was a good request makes anybody build something.
  if (common.filter != nullptr) note_filtered();
  if (common.mode != SearchMode::kExact) note_searched(out.front().metric);
  EngineMetrics& metrics = context_->metrics;
  metrics.search_queries.add(queries.size());
  if (out.front().mode == SearchMode::kIvf) metrics.search_ivf_queries.add(queries.size());
  if (out.front().ivf_fallback_exact) metrics.search_ivf_fallback_exact.add(queries.size());
  Histogram& time = out.front().mode == SearchMode::kExact ? metrics.search_exact_time
                                                           : metrics.search_graph_time;
  time.observe_us(elapsed_us(start, context_->clock->now()));
  if (context_->budget.limit() != 0) context_->look_at_memory();
  if (common.mode != SearchMode::kExact) {
    tell_of_open_reads(*view, out.front().metric, queries.size());
    metrics.index_lookups.add(queries.size());
    if (out.front().mode != SearchMode::kExact) metrics.index_hits.add(queries.size());
    if (context_->options.recall_audit && samples_.note(common, queries, out)) {
      context_->audit_wanted();
    }
  }
  return out;
}

void StoredCollection::tell_of_bare_reads() const {
  const uint64_t reads = bare_reads_.load(std::memory_order_relaxed);
  uint64_t due = bare_reads_due_.load(std::memory_order_relaxed);
  if (reads < due) return;
  // Once for each step: whether they are enough for a build, the keeper knows.
  if (!bare_reads_due_.compare_exchange_strong(due, reads + kBareReadsStep)) return;
  context_->index_wanted();
  // Its threads may all be at work. Open rows are read as they are, sealed ones by their codes.
  const uint64_t open = unsealed_rows();
  if (open >= kIndexRowsAsked && reads >= kReadsPerBuild * open) context_->sealing_asked();
}

void StoredCollection::tell_of_open_reads(const View& view, Metric metric, size_t queries) const {
  if (view.segments.empty() || view.segments.back().segment->sealed()) return;
  const SegmentView& last = view.segments.back();
  const auto& open = static_cast<const OpenSegment&>(*last.segment);
  const std::shared_ptr<const VectorIndex> codes = open.row_codes(metric);
  const RowId coded = codes == nullptr ? 0 : codes->rows_count();
  if (last.rows < coded + kUncodedRowsMin || open.refuses_codes(metric)) return;
  const uint64_t more = uint64_t{last.rows - coded} * queries;
  if (open_reads_.fetch_add(more) + more < kReadsPerCode * last.rows) return;
  open_reads_.store(0);
  // They live on the heap, outside any budget, and are made in the terms of an index.
  if (context_->budget.limit() != 0) return;
  const bool any = std::any_of(view.segments.begin(), view.segments.end(), [&](const auto& part) {
    return part.segment->vector_index(metric) != nullptr;
  });
  if (!any) return;
  asked_codes_.fetch_or(1U << static_cast<uint32_t>(metric));
  context_->coding_asked();
}

void StoredCollection::reset_bare_reads() {
  bare_reads_due_.store(kBareReadsStep);
  bare_reads_.store(0);
}

void StoredCollection::note_searched(Metric metric) const {
  const uint32_t bit = 1U << static_cast<uint32_t>(metric);
  if ((searched_metrics_.load(std::memory_order_relaxed) & bit) != 0) return;
  searched_metrics_.fetch_or(bit, std::memory_order_relaxed);
  context_->index_wanted();
}

Status StoredCollection::alive() const {
  if (quarantined_.load(std::memory_order_relaxed)) return corruption("collection is quarantined");
  if (dropped_.load(std::memory_order_acquire)) return not_found("collection was deleted");
  return {};
}

void StoredCollection::note_filtered() const {
  if (filtered_.load(std::memory_order_relaxed) || filtered_.exchange(true)) return;
  context_->index_wanted();
}

std::vector<Metric> StoredCollection::wanted_metrics() const {
  if (options_.metric) return {*options_.metric};
  std::vector<Metric> out;
  const uint32_t bits = searched_metrics_.load(std::memory_order_relaxed);
  for (const Metric metric : {Metric::kDot, Metric::kL2, Metric::kCosine}) {
    if ((bits >> static_cast<uint32_t>(metric) & 1) != 0) out.push_back(metric);
  }
  return out;
}

namespace {

void add_index_stats(const SegmentView& part, SegmentStats* stats) {
  if (!part.segment->sealed()) return;
  const auto indexes = dynamic_cast<const SealedSegment&>(*part.segment).indexes();
  if (indexes == nullptr) return;
  for (const SegmentIndexes::Entry& entry : indexes->by_metric) {
    if (entry.index == nullptr) continue;
    IndexStats index;
    index.metric = entry.index->metric();
    index.kind = "graph";
    index.codec = entry.index->codec_reason();
    index.disk_bytes = entry.file->file_bytes();
    index.hot_bytes = entry.index->hot_bytes();
    index.rows_outside = entry.index->outside_count();
    for (const RecallPoint& point : entry.index->curve()) {
      index.curve.push_back({point.k, point.ef, point.recall, point.low});
    }
    stats->indexes.push_back(std::move(index));
  }
}

std::string name_of(Residency residency) {
  switch (residency) {
    case Residency::kAll: return "all";
    case Residency::kCodes: return "codes";
    case Residency::kNothing: break;
  }
  return "nothing";
}

uint64_t field_index_bytes(const SegmentView& part) {
  if (!part.segment->sealed()) return 0;
  const auto indexes = dynamic_cast<const SealedSegment&>(*part.segment).indexes();
  const bool has = indexes != nullptr && indexes->fields.file != nullptr;
  return has ? indexes->fields.file->file_bytes() : 0;
}

}  // namespace

Result<CollectionStats> StoredCollection::stats() const {
  return entered(*context_, [&]() -> Result<CollectionStats> {
    ASSIGN_OR_RETURN(const std::shared_ptr<const View> view, readable());
    CollectionStats out;
    out.info = {name_, options_, view->points};
    for (const SegmentView& part : view->segments) {
      SegmentStats stats;
      stats.id = part.segment->id();
      stats.sealed = part.segment->sealed();
      stats.in_place = name_of(part.segment->residency());
      stats.row_format = part.segment->row_format();
      stats.rows = part.rows;
      stats.rows_deleted = part.dead->count();
      stats.disk_bytes = part.segment->disk_bytes();
      stats.memory_bytes = part.segment->memory_bytes();
      add_index_stats(part, &stats);
      for (const IndexStats& index : stats.indexes) out.index_bytes += index.disk_bytes;
      out.index_bytes += field_index_bytes(part);
      out.disk_bytes += stats.disk_bytes;
      out.memory_bytes += stats.memory_bytes;
      out.segments.push_back(stats);
    }
    out.audit = samples_.summary(context_->clock->now());
    return out;
  });
}

Status StoredCollection::optimize() {
  return entered(*context_, [&]() -> Status {
    RETURN_IF_ERROR(readable().status());
    return context_->optimize(*this);
  });
}

// ---- recovery -----------------------------------------------------------------------------------

Status StoredCollection::load(const std::vector<SegmentId>& segments, Lsn applied) {
  MutexLock lock(mutex_);
  catalogued.segments = segments;
  catalogued.applied = applied;
  working_.segments.clear();
  kills_.clear();
  std::vector<Kill> kills;
  for (const SegmentId id : segments) {
    ASSIGN_OR_RETURN(std::shared_ptr<SegmentFile> file, context_->storage->open_segment(id));
    ASSIGN_OR_RETURN(std::shared_ptr<const SealedSegment> segment,
                     SealedSegment::open(std::move(file), options_.dimension, options_.id_type));
    ASSIGN_OR_RETURN(const std::vector<Kill> more, segment->kills());
    kills.insert(kills.end(), more.begin(), more.end());
    if (segment->failed()) return corruption("segment cannot be read: " + std::to_string(id));
    const RowId rows = segment->rows_count();
    working_.segments.push_back({std::move(segment), rows, no_dead_rows(), 0});
  }
  working_.points = 0;
  std::vector<RowId> rows;
  for (SegmentView& view : working_.segments) {
    rows.clear();
    for (const Kill& kill : kills) {
      if (kill.segment != view.segment->id()) continue;
      if (kill.row >= view.rows) return corruption("a kill names a row beyond its segment");
      rows.push_back(kill.row);
    }
    if (!rows.empty()) view.dead = std::make_shared<const DeadRows>(view.dead->with(rows));
    working_.points += view.live();
  }
  retire_open();
  return {};
}

Status StoredCollection::replay(Lsn lsn, const UpsertOp& op) {
  if (lsn <= catalogued.applied || quarantined_) return {};
  MutexLock lock(mutex_);
  if (op.dimension != options_.dimension || op.id_type != options_.id_type) {
    return noted(corruption("a log record does not fit its collection"));
  }
  const std::vector<Use> uses = uses_of(op.ids);
  keep_open_small(uses.size());
  ASSIGN_OR_RETURN(const Resolved resolved, noted(resolve(op.ids, uses)));
  const uint64_t bytes = bytes_of(op, uses);
  // What was acknowledged must come back, whatever the budget says now.
  context_->budget.reserve_always(bytes);
  open_->adopt_reservation(bytes);
  apply_upsert(op, uses, resolved);
  last_.lsn = lsn;
  return {};
}

Status StoredCollection::replay(Lsn lsn, const RemoveOp& op) {
  if (lsn <= catalogued.applied || quarantined_) return {};
  MutexLock lock(mutex_);
  if (!check_id_types(op.ids).ok()) {
    return noted(corruption("a log record does not fit its collection"));
  }
  ASSIGN_OR_RETURN(const Resolved resolved, noted(resolve(op.ids, uses_of(op.ids))));
  apply_remove(resolved);
  last_.lsn = lsn;
  return {};
}

void StoredCollection::finish_recovery() {
  MutexLock lock(mutex_);
  generation_ = context_->storage->generation();
  last_.generation = generation_;
  published_lsn_ = last_.lsn;
  publish(snapshot());
  visible.store(true, std::memory_order_release);
}

// ---- maintenance --------------------------------------------------------------------------------

FrozenRows StoredCollection::freeze() {
  MutexLock lock(mutex_);
  FrozenRows out;
  if (quarantined_.load(std::memory_order_relaxed)) return out;
  mend();
  if (context_->storage->generation() != generation_) roll_back();
  const bool open_is_empty = open_->rows_appended() == 0 && kills_.back().second.empty();
  if (!open_is_empty) retire_open();
  for (const SegmentView& view : working_.segments) {
    if (view.segment->sealed() || view.segment->id() == open_->id()) continue;
    for (const auto& [segment, kills] : kills_) {
      if (segment == view.segment->id()) out.parts.push_back({view, kills});
    }
  }
  out.last = last_;
  return out;
}

Status StoredCollection::publish_frozen(const Ticket& last) {
  MutexLock lock(mutex_);
  if (context_->storage->generation() != generation_ || last.generation != generation_) {
    return unavailable("writes were rolled back while they were being sealed");
  }
  publish_through(last);
  return {};
}

uint64_t StoredCollection::unsealed_rows() const {
  const std::shared_ptr<const View> published = published_.get();
  uint64_t rows = 0;
  for (const SegmentView& view : published->segments) {
    if (!view.segment->sealed()) rows += view.live();
  }
  return rows;
}

std::vector<SegmentView> StoredCollection::sealed_segments() const {
  std::vector<SegmentView> out;
  const std::shared_ptr<const View> published = published_.get();
  for (const SegmentView& view : published->segments) {
    if (view.segment->sealed()) out.push_back(view);
  }
  return out;
}

Result<View> StoredCollection::replaced(
    const View& view, const std::vector<SegmentView>& removed,
    const std::vector<std::shared_ptr<const SealedSegment>>& added) const {
  View out;
  out.points = view.points;
  std::vector<RowId> dead;
  for (const SegmentView& base : removed) {
    const SegmentView* now = find_segment(view.segments, base.segment->id());
    if (now == nullptr) return internal_error("a segment to replace is not in the view");
    Status failed;
    now->dead->for_each_added(*base.dead, [&](RowId row) {
      if (!failed.ok() || added.empty()) return;
      const Result<RowId> moved = moved_row(*base.segment, row, *added[0], options_.id_type);
      if (moved) {
        dead.push_back(*moved);
      } else {
        failed = moved.error();
      }
    });
    RETURN_IF_ERROR(failed);
  }
  for (const SegmentView& part : view.segments) {
    if (find_segment(removed, part.segment->id()) == nullptr) out.segments.push_back(part);
  }
  for (const auto& segment : added) {
    const auto first_unsealed =
        std::find_if(out.segments.begin(), out.segments.end(),
                     [](const SegmentView& part) { return !part.segment->sealed(); });
    const auto dead_there = segment == added[0]
                                ? std::make_shared<const DeadRows>(DeadRows().with(dead))
                                : no_dead_rows();
    out.segments.insert(first_unsealed, {segment, segment->rows_count(), dead_there, 0});
  }
  return out;
}

Status StoredCollection::replace(const std::vector<SegmentView>& removed,
                                 const std::vector<std::shared_ptr<const SealedSegment>>& added) {
  MutexLock lock(mutex_);
  mend();
  ASSIGN_OR_RETURN(View working, noted(replaced(working_, removed, added)));
  ASSIGN_OR_RETURN(View shown, noted(replaced(*published_.get(), removed, added)));
  auto published = std::make_shared<const View>(std::move(shown));
  std::vector<std::shared_ptr<const View>> pending;
  for (const Pending& entry : pending_) {
    ASSIGN_OR_RETURN(View view, noted(replaced(*entry.view, removed, added)));
    pending.push_back(std::make_shared<const View>(std::move(view)));
  }
  auto all_kills = kills_;
  std::erase_if(all_kills,
                [&](const auto& entry) { return find_segment(removed, entry.first) != nullptr; });
  for (auto& [segment, kills] : all_kills) {
    for (Kill& kill : kills) {
      const SegmentView* base = find_segment(removed, kill.segment);
      if (base == nullptr || base->dead->contains(kill.row) || added.empty()) continue;
      ASSIGN_OR_RETURN(kill.row,
                       noted(moved_row(*base->segment, kill.row, *added[0], options_.id_type)));
      kill.segment = added[0]->id();
    }
  }
  for (const SegmentView& base : removed) {
    if (base.segment->failed()) return corruption("a segment that was merged cannot be read");
  }
  // Nothing below can fail.
  kills_ = std::move(all_kills);
  working_ = std::move(working);
  for (size_t i = 0; i < pending.size(); ++i) pending_[i].view = std::move(pending[i]);
  publish(std::move(published));
  return {};
}

}  // namespace aionbd
