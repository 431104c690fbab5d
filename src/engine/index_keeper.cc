#include "engine/index_keeper.h"

#include <algorithm>

#include "engine/index_file.h"

namespace aionbd {

namespace {

/// Rows without an index, as a share of those with one, that make a merge and a build worth it.
constexpr double kUnindexedShare = 0.25;
/// Under a budget no more than one in this many of the rows of an indexed segment wait for an
/// index: they are read from the disk.
constexpr uint64_t kBudgetPartsWorth = 4;
/// A build that found no memory is tried again after this many pauses.
constexpr int kCooldownsForMemory = 3;
/// A failed build is tried again after this many pauses: what failed (a full disk) takes time.
constexpr int kCooldownsAfterFailure = 60;

constexpr Metric kMetrics[] = {Metric::kDot, Metric::kL2, Metric::kCosine};

/// The rows of a sealed segment. Thread safety: safe.
class SegmentRows final : public RowSource {
 public:
  explicit SegmentRows(const SealedSegment& segment) : segment_(segment) {}

  uint32_t rows_count() const override { return segment_.rows_count(); }
  uint32_t dimension() const override { return segment_.dimension(); }
  Status read(uint32_t first, size_t n, float* out) const override {
    if (segment_.residency() != Residency::kAll) return segment_.copy_rows(first, n, out, nullptr);
    while (n > 0) {
      ASSIGN_OR_RETURN(const RowBlock block, segment_.rows(first, n));
      std::copy_n(block.values, block.count * segment_.dimension(), out);
      out += block.count * segment_.dimension();
      first += static_cast<uint32_t>(block.count);
      n -= block.count;
    }
    return {};
  }

 private:
  const SealedSegment& segment_;
};

/// The lists of an index, copied from its file. Thread safety: safe.
class FileLists final : public ListReader {
 public:
  FileLists(std::shared_ptr<SegmentFile> file, Section members, Section high, size_t stride)
      : file_(std::move(file)), members_(members), high_(high), stride_(stride) {}

  Status read(size_t first, size_t n, uint32_t* members, uint8_t* high) const override {
    RETURN_IF_ERROR(
        members_.read(first * sizeof(uint32_t), std::as_writable_bytes(std::span(members, n))));
    return high_.read(first * stride_, std::as_writable_bytes(std::span(high, n * stride_)));
  }

 private:
  const std::shared_ptr<SegmentFile> file_;
  const Section members_;
  const Section high_;
  const size_t stride_;
};

/// An opened index, to attach to its segment.
Result<SegmentIndexes::Entry> entry_of(std::shared_ptr<SegmentFile> file,
                                       std::shared_ptr<const VectorIndex> index) {
  ASSIGN_OR_RETURN(const Section members, file->section(index_tag(IndexPart::kIvfMembers)));
  ASSIGN_OR_RETURN(const Section high, file->section(index_tag(IndexPart::kIvfHigh)));
  auto lists = std::make_shared<const FileLists>(file, members, high, index->code_stride());
  return SegmentIndexes::Entry{std::move(file), std::move(index), std::move(lists)};
}

/// Opens the file of an index and attaches it to its segment.
Status open_file(Storage& storage, const CataloguedIndex& entry, const SealedSegment& segment) {
  ASSIGN_OR_RETURN(std::shared_ptr<SegmentFile> file, storage.open_segment(entry.file));
  if (entry.kind == IndexKind::kFields) {
    ASSIGN_OR_RETURN(FieldIndex index, open_field_index(*file, segment.rows_count()));
    segment.attach({std::move(file), std::move(index)});
    return {};
  }
  // So the checksums at least touch no page.
  if (segment.residency() != Residency::kAll) RETURN_IF_ERROR(file->verify());
  ASSIGN_OR_RETURN(std::shared_ptr<const VectorIndex> index,
                   open_vector_index(*file, segment.rows_count(), segment.dimension()));
  if (index->metric() != entry.metric) return corruption("vector index: made for another metric");
  // Checking touched every page; which of them are hot, searches decide.
  file->forget_pages();
  ASSIGN_OR_RETURN(SegmentIndexes::Entry opened, entry_of(std::move(file), std::move(index)));
  segment.attach(entry.metric, std::move(opened));
  return {};
}

bool has_vector_index(const Segment& segment) {
  return std::any_of(std::begin(kMetrics), std::end(kMetrics),
                     [&](Metric metric) { return segment.vector_index(metric) != nullptr; });
}

std::shared_ptr<const SealedSegment> as_sealed(const SegmentView& view) {
  return std::dynamic_pointer_cast<const SealedSegment>(view.segment);
}

}  // namespace

IndexKeeper::IndexKeeper(std::shared_ptr<EngineContext> context,
                         std::function<Collections()> collections, Maintenance& maintenance,
                         Pinning& pinning)
    : context_(std::move(context)),
      collections_(std::move(collections)),
      maintenance_(maintenance),
      pinning_(pinning) {
  if (context_->options.index_warmup_on_boot) due_ = true;
  thread_ = std::thread([this] { run(); });
}

IndexKeeper::~IndexKeeper() {
  stop();
}

void IndexKeeper::wake() {
  {
    MutexLock lock(wake_mutex_);
    due_ = true;
  }
  wake_.notify_all();
}

void IndexKeeper::stop() {
  stopping_.store(true);
  wake();
  if (thread_.joinable()) thread_.join();
}

bool IndexKeeper::wait_for_work() {
  MutexLock lock(wake_mutex_);
  while (!stopping_.load()) {
    if (!due_) {
      wake_.wait(wake_mutex_);
    } else if (context_->clock->now() < rest_until_) {
      context_->metrics.index_build_cooldown_skips.add();
      wake_.wait_until(wake_mutex_, rest_until_);
    } else {
      due_ = false;
      return true;
    }
  }
  return false;
}

void IndexKeeper::run() {
  while (wait_for_work()) {
    bool busy = false;
    for (const auto& collection : collections_()) {
      if (!collection->visible || !collection->quarantine_reason().empty()) continue;
      const auto note = [&](const Result<bool>& done) {
        if (!done && !stopping_.load()) {
          context_->logger.warning("engine: no index for " + collection->name() +
                                   " yet: " + done.error().to_string());
        }
        busy = busy || !done || *done;
      };
      MutexLock lock(work_mutex_);
      note(step_fields(*collection, kIndexRowsMin));
      for (const Metric metric : collection->wanted_metrics()) {
        note(step(*collection, metric, kIndexRowsMin));
      }
    }
    MutexLock lock(wake_mutex_);
    if (busy) due_ = true;
    rest_until_ = context_->clock->now() + context_->options.index_build_cooldown;
  }
}

Status IndexKeeper::build_all(StoredCollection& collection) {
  for (const Metric metric : collection.wanted_metrics()) {
    for (;;) {
      MutexLock lock(work_mutex_);
      ASSIGN_OR_RETURN(const bool more, step(collection, metric, kIndexRowsMin));
      if (!more) break;
    }
  }
  for (;;) {
    MutexLock lock(work_mutex_);
    ASSIGN_OR_RETURN(const bool more, step_fields(collection, kIndexRowsMin));
    if (!more) return {};
  }
}

bool IndexKeeper::put_off(SegmentId segment, Metric metric) const {
  const auto found = not_before_.find({segment, metric});
  return found != not_before_.end() && context_->clock->now() < found->second;
}

Result<bool> IndexKeeper::step(StoredCollection& collection, Metric metric, uint64_t rows_min) {
  if (stopping_.load()) return unavailable("the database is closing");
  RETURN_IF_ERROR(collection.alive());
  RETURN_IF_ERROR(open_stored(collection, IndexKind::kVector, metric));
  std::vector<SegmentView> bare;   // without any index: may be merged
  std::vector<SegmentView> other;  // with an index for another metric
  uint64_t rows_bare = 0;
  uint64_t rows_other = 0;
  uint64_t rows_with = 0;
  for (SegmentView& view : collection.sealed_segments()) {
    if (view.segment->vector_index(metric) != nullptr) {
      rows_with += view.rows;
    } else if (put_off(view.segment->id(), metric)) {
      continue;
    } else if (has_vector_index(*view.segment)) {
      rows_other += view.rows;
      other.push_back(std::move(view));
    } else {
      rows_bare += view.rows;
      bare.push_back(std::move(view));
    }
  }
  const auto share = static_cast<uint64_t>(kUnindexedShare * static_cast<double>(rows_with));
  const uint64_t rows_max =
      indexable_rows_max(context_->budget.limit(), collection.options().dimension);
  if (rows_max < rows_min) {
    note_memory("no index of " + collection.name() + " can be built");
    return false;
  }
  const uint64_t worth = std::max(rows_min, std::min(share, rows_max / kBudgetPartsWorth));
  // The last rows of a load wait for a checkpoint that no further write makes due.
  if (const uint64_t unsealed = collection.unsealed_rows(); unsealed >= worth) {
    RETURN_IF_ERROR(maintenance_.checkpoint());
    return collection.unsealed_rows() < unsealed;
  }
  if (rows_bare + rows_other < worth) return false;
  if (rows_bare >= worth) {
    ASSIGN_OR_RETURN(const bool merged, merge_bare(collection, bare, worth, rows_max));
    if (merged) return true;
  }
  const std::vector<SegmentView>& choice = other.empty() ? bare : other;
  // The largest: what merging left over may be too small.
  const SegmentView& chosen =
      *std::max_element(choice.begin(), choice.end(),
                        [](const SegmentView& a, const SegmentView& b) { return a.rows < b.rows; });
  if (chosen.rows < rows_min) return false;
  const Status built = counted([&]() NO_THREAD_SAFETY_ANALYSIS {  // called before it returns
    return build(collection, as_sealed(chosen), metric);
  });
  if (built.ok()) return true;
  if (built.code() == Code::kResourceExhausted) {
    note_memory("an index of " + collection.name() + ": " + built.message());
    not_before_[{chosen.segment->id(), metric}] =
        context_->clock->now() + kCooldownsForMemory * context_->options.index_build_cooldown;
    return true;
  }
  note_failure(collection, chosen.segment->id(), metric, built);
  if (built.code() == Code::kFailedPrecondition) return true;
  return built;
}

Result<bool> IndexKeeper::merge_bare(StoredCollection& collection,
                                     const std::vector<SegmentView>& bare, uint64_t worth,
                                     uint64_t rows_max) {
  std::vector<SegmentId> ids;
  uint64_t rows = 0;
  for (const SegmentView& view : bare) {
    // One of more than half the rows is built as it is, and not merged once more for what came.
    if (view.live() > rows_max / 2 || rows + view.live() > rows_max) continue;
    rows += view.live();
    ids.push_back(view.segment->id());
  }
  if (ids.size() < 2 || rows < worth) return false;
  const Status merged = maintenance_.merge_segments(collection, ids);
  if (merged.code() == Code::kResourceExhausted) {
    note_memory(merged.message());
    return false;
  }
  RETURN_IF_ERROR(merged);
  return true;
}

Result<Pinning::Build> IndexKeeper::room_for_build(const SealedSegment& segment) {
  const uint64_t bytes = build_bytes(segment.rows_count(), segment.dimension(),
                                     build_memory_max(context_->budget.limit()));
  Result<Pinning::Build> room = pinning_.begin_build(bytes);
  if (room || room.error().code() != Code::kResourceExhausted) return room;
  RETURN_IF_ERROR(maintenance_.checkpoint());
  return pinning_.begin_build(bytes);
}

void IndexKeeper::note_memory(const std::string& what) {
  context_->metrics.index_build_memory_waits.add();
  if (memory_told_) return;
  memory_told_ = true;
  context_->logger.warning("engine: waiting for memory (told once): " + what);
}

void IndexKeeper::note_failure(const StoredCollection& collection, SegmentId segment, Metric metric,
                               const Status& why) {
  if (why.code() == Code::kFailedPrecondition) {
    // Counted, but nothing is wrong with the collection.
    not_before_[{segment, metric}] = MonotonicTime::max();
    context_->logger.info("engine: " + collection.name() +
                          " stays without an index: " + why.message());
  } else {
    not_before_[{segment, metric}] =
        context_->clock->now() + kCooldownsAfterFailure * context_->options.index_build_cooldown;
  }
}

Result<bool> IndexKeeper::step_fields(StoredCollection& collection, uint64_t rows_min) {
  if (stopping_.load()) return unavailable("the database is closing");
  RETURN_IF_ERROR(collection.alive());
  RETURN_IF_ERROR(open_stored(collection, IndexKind::kFields, Metric::kDot));
  if (!collection.wants_fields()) return false;
  for (const SegmentView& view : collection.sealed_segments()) {
    const std::shared_ptr<const SealedSegment> segment = as_sealed(view);
    if (segment->rows_count() < rows_min || !segment->has_payloads()) continue;
    if (segment->field_index() != nullptr) continue;
    const Status built = counted([&]() NO_THREAD_SAFETY_ANALYSIS {  // called before it returns
      return build_fields(collection, segment);
    });
    RETURN_IF_ERROR(built);
    return true;
  }
  return false;
}

Status IndexKeeper::open_stored(StoredCollection& collection, IndexKind kind, Metric metric) {
  const std::vector<CataloguedIndex> stored = maintenance_.indexes_of(collection);
  for (const SegmentView& view : collection.sealed_segments()) {
    const bool open = kind == IndexKind::kFields ? view.segment->field_index() != nullptr
                                                 : view.segment->vector_index(metric) != nullptr;
    if (open) continue;
    for (const CataloguedIndex& entry : stored) {
      if (entry.segment != view.segment->id() || entry.kind != kind || entry.metric != metric) {
        continue;
      }
      if (kind == IndexKind::kFields) collection.note_filtered();
      const Status opened = open_file(*context_->storage, entry, *as_sealed(view));
      if (opened.ok()) {
        context_->segments_changed();
        continue;
      }
      // What may pass (too many open files) is no reason to throw it away.
      const bool damaged = opened.code() == Code::kCorruption || opened.code() == Code::kNotFound;
      if (!damaged) return opened;
      context_->logger.warning("engine: an index of " + collection.name() +
                               " is dropped and built again: " + opened.to_string());
      RETURN_IF_ERROR(maintenance_.drop_index(collection, entry.file));
    }
  }
  return {};
}

Status IndexKeeper::counted(const std::function<Status()>& build) {
  EngineMetrics& metrics = context_->metrics;
  metrics.index_build_requests.add();
  metrics.index_build_in_flight.set(1);
  const MonotonicTime start = context_->clock->now();
  const Status status = build();
  metrics.index_build_in_flight.set(0);
  (status.ok() ? metrics.index_build_successes : metrics.index_build_failures).add();
  if (status.ok()) metrics.index_build_time.observe_us(elapsed_us(start, context_->clock->now()));
  return status;
}

Status IndexKeeper::build(StoredCollection& collection,
                          const std::shared_ptr<const SealedSegment>& segment, Metric metric) {
  RETURN_IF_ERROR(context_->storage->health());
  std::shared_ptr<SegmentFile> file;
  {
    ASSIGN_OR_RETURN(const Pinning::Build room, room_for_build(*segment));
    ASSIGN_OR_RETURN(file, write_index(collection, segment, metric));
  }
  const bool limited = context_->budget.limit() != 0;
  if (limited) RETURN_IF_ERROR(file->verify());
  ASSIGN_OR_RETURN(std::shared_ptr<const VectorIndex> index,
                   open_vector_index(*file, segment->rows_count(), segment->dimension()));
  if (limited) file->forget_pages();
  ASSIGN_OR_RETURN(const bool adopted,
                   maintenance_.adopt_index(
                       collection, {segment->id(), IndexKind::kVector, metric, file->id()}));
  if (!adopted) return {};
  ASSIGN_OR_RETURN(SegmentIndexes::Entry entry, entry_of(std::move(file), std::move(index)));
  segment->attach(metric, std::move(entry));
  context_->segments_changed();
  return {};
}

Result<std::shared_ptr<SegmentFile>> IndexKeeper::write_index(
    StoredCollection& collection, const std::shared_ptr<const SealedSegment>& segment,
    Metric metric) {
  const SegmentRows rows(*segment);
  // The seed is the segment's, so that the same data in the same segment gets the same index.
  Result<BuiltIndex> made = build_index(
      rows, metric, segment->id(), context_->pool.get(),
      [&] { return stopping_.load() || !collection.alive().ok(); },
      build_memory_max(context_->budget.limit()));
  // Only the rows are read there: what is damaged is the collection.
  if (!made && made.error().code() == Code::kCorruption) {
    collection.quarantine(made.error().message());
  }
  ASSIGN_OR_RETURN(const BuiltIndex built, std::move(made));
  const SegmentId id = context_->new_segment_id();
  ASSIGN_OR_RETURN(const std::unique_ptr<SegmentWriter> writer, context_->storage->new_segment(id));
  const Status written = built.write([&](IndexPart part, Bytes bytes) -> Status {
    RETURN_IF_ERROR(writer->begin_section(index_tag(part)));
    return writer->append(bytes);
  });
  RETURN_IF_ERROR(written);
  return writer->finish();
}

Status IndexKeeper::build_fields(StoredCollection& collection,
                                 const std::shared_ptr<const SealedSegment>& segment) {
  constexpr RowId kRowsPerLook = 4096;  // rows between two looks at whether to stop
  FieldIndexBuilder builder;
  for (RowId row = 0; row < segment->rows_count(); ++row) {
    if (row % kRowsPerLook == 0 && stopping_.load()) return unavailable("the database is closing");
    ASSIGN_OR_RETURN(const Bytes payload, segment->payload(row));
    builder.add(payload);
  }
  const std::string bytes = std::move(builder).finish();
  const SegmentId id = context_->new_segment_id();
  ASSIGN_OR_RETURN(const std::unique_ptr<SegmentWriter> writer, context_->storage->new_segment(id));
  RETURN_IF_ERROR(writer->begin_section(kTagFields));
  RETURN_IF_ERROR(writer->append(as_bytes_of(bytes)));
  ASSIGN_OR_RETURN(std::shared_ptr<SegmentFile> file, writer->finish());
  ASSIGN_OR_RETURN(FieldIndex index, open_field_index(*file, segment->rows_count()));
  ASSIGN_OR_RETURN(
      const bool adopted,
      maintenance_.adopt_index(collection, {segment->id(), IndexKind::kFields, Metric::kDot, id}));
  if (adopted) segment->attach({std::move(file), std::move(index)});
  return {};
}

}  // namespace aionbd
