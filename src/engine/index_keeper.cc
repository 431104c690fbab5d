#include "engine/index_keeper.h"

#include <algorithm>

namespace aionbd {

namespace {

/// Rows without an index, as a share of those with one, that make a merge and a build worth it.
constexpr double kUnindexedShare = 0.25;

SectionTag tag_of(IndexPart part) {
  return static_cast<SectionTag>(part);
}

/// The rows of a sealed segment. Thread safety: safe.
class SegmentRows final : public RowSource {
 public:
  explicit SegmentRows(const SealedSegment& segment) : segment_(segment) {}

  uint32_t rows_count() const override { return segment_.rows_count(); }
  uint32_t dimension() const override { return segment_.dimension(); }
  Status read(uint32_t first, size_t n, float* out) const override {
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

Result<std::shared_ptr<const VectorIndex>> open_index(const SegmentFile& file,
                                                      const SealedSegment& segment) {
  const auto read = [&](IndexPart part) -> Result<Bytes> {
    ASSIGN_OR_RETURN(const Section section, file.section(tag_of(part)));
    return section.all();
  };
  return VectorIndex::open(read, segment.rows_count(), segment.dimension());
}

std::shared_ptr<const SealedSegment> as_sealed(const SegmentView& view) {
  return std::dynamic_pointer_cast<const SealedSegment>(view.segment);
}

}  // namespace

IndexKeeper::IndexKeeper(std::shared_ptr<EngineContext> context,
                         std::function<Collections()> collections, Maintenance& maintenance)
    : context_(std::move(context)),
      collections_(std::move(collections)),
      maintenance_(maintenance) {
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
      for (const Metric metric : collection->wanted_metrics()) {
        MutexLock lock(work_mutex_);
        const Result<bool> done = step(*collection, metric, kIndexRowsMin);
        if (!done && !stopping_.load()) {
          context_->logger.warning("engine: no index for " + collection->name() +
                                   " yet: " + done.error().to_string());
        }
        busy = busy || !done || *done;
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
  return {};
}

bool IndexKeeper::hopeless(SegmentId segment, Metric metric) const {
  return hopeless_.contains({segment, metric});
}

Result<bool> IndexKeeper::step(StoredCollection& collection, Metric metric, uint64_t rows_min) {
  if (stopping_.load()) return unavailable("the database is closing");
  RETURN_IF_ERROR(open_stored(collection, metric));
  std::vector<SegmentView> without;
  uint64_t rows_without = 0;
  uint64_t rows_with = 0;
  for (SegmentView& view : collection.sealed_segments()) {
    if (view.segment->vector_index(metric) != nullptr) {
      rows_with += view.rows;
    } else if (!hopeless(view.segment->id(), metric)) {
      rows_without += view.rows;
      without.push_back(std::move(view));
    }
  }
  const auto share = static_cast<uint64_t>(kUnindexedShare * static_cast<double>(rows_with));
  const uint64_t worth = std::max(rows_min, share);
  // The last rows of a load wait for a checkpoint that no further write makes due.
  if (collection.unsealed_rows() >= worth) {
    RETURN_IF_ERROR(maintenance_.checkpoint());
    return true;
  }
  if (rows_without < worth) return false;
  if (without.size() > 1) {
    std::vector<SegmentId> ids;
    for (const SegmentView& view : without) ids.push_back(view.segment->id());
    RETURN_IF_ERROR(maintenance_.merge_segments(collection, ids));
    return true;
  }
  RETURN_IF_ERROR(build(collection, as_sealed(without.front()), metric));
  return true;
}

Status IndexKeeper::open_stored(StoredCollection& collection, Metric metric) {
  const std::vector<CataloguedIndex> stored = maintenance_.indexes_of(collection);
  for (const SegmentView& view : collection.sealed_segments()) {
    if (view.segment->vector_index(metric) != nullptr) continue;
    for (const CataloguedIndex& entry : stored) {
      if (entry.segment != view.segment->id() || entry.metric != metric) continue;
      const std::shared_ptr<const SealedSegment> segment = as_sealed(view);
      Result<std::shared_ptr<SegmentFile>> file = context_->storage->open_segment(entry.file);
      Result<std::shared_ptr<const VectorIndex>> index =
          file ? open_index(**file, *segment)
               : Result<std::shared_ptr<const VectorIndex>>(file.error());
      if (index) {
        segment->attach(metric, {std::move(*file), std::move(*index)});
        continue;
      }
      context_->logger.warning("engine: an index of " + collection.name() +
                               " is dropped and built again: " + index.error().to_string());
      RETURN_IF_ERROR(maintenance_.drop_index(collection, entry.file));
    }
  }
  return {};
}

Status IndexKeeper::build(StoredCollection& collection,
                          const std::shared_ptr<const SealedSegment>& segment, Metric metric) {
  EngineMetrics& metrics = context_->metrics;
  metrics.index_build_requests.add();
  metrics.index_build_in_flight.set(1);
  const MonotonicTime start = context_->clock->now();
  const auto finished = [&](Status status) {
    metrics.index_build_in_flight.set(0);
    (status.ok() ? metrics.index_build_successes : metrics.index_build_failures).add();
    if (status.ok()) {
      metrics.index_build_time.observe_us(elapsed_us(start, context_->clock->now()));
    }
    return status;
  };
  const SegmentRows rows(*segment);
  // The seed is the segment's, so that the same data in the same segment gets the same index.
  Result<BuiltIndex> built = build_index(rows, metric, segment->id(), context_->pool.get(),
                                         [this] { return stopping_.load(); });
  if (!built) {
    if (built.error().code() == Code::kFailedPrecondition) {
      hopeless_.insert({segment->id(), metric});
      context_->logger.info("engine: " + collection.name() +
                            " stays without an index: " + built.error().message());
      (void)finished(built.error());  // counted; nothing is wrong with the collection
      return {};
    }
    return finished(built.error());
  }
  const SegmentId id = context_->new_segment_id();
  Result<std::unique_ptr<SegmentWriter>> writer = context_->storage->new_segment(id);
  if (!writer) return finished(writer.error());
  const Status written = built->write([&](IndexPart part, Bytes bytes) -> Status {
    RETURN_IF_ERROR((*writer)->begin_section(tag_of(part)));
    return (*writer)->append(bytes);
  });
  if (!written.ok()) return finished(written);
  Result<std::shared_ptr<SegmentFile>> file = (*writer)->finish();
  if (!file) return finished(file.error());
  Result<std::shared_ptr<const VectorIndex>> index = open_index(**file, *segment);
  if (!index) return finished(index.error());
  const Result<bool> adopted = maintenance_.adopt_index(collection, {segment->id(), metric, id});
  if (!adopted) return finished(adopted.error());
  if (*adopted) segment->attach(metric, {std::move(*file), std::move(*index)});
  return finished({});
}

}  // namespace aionbd
