#include "engine/pinning.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/memory_guard.h"
#include "index/vector_index.h"

namespace aionbd {

namespace {

/// rows_in_id_order: an entry to sort and a row to write, each with room to grow.
constexpr uint64_t kMergeRowBytes = 96;
/// Buffers of the writer.
constexpr uint64_t kMergeFixedBytes = uint64_t{2} << 20;
/// Over the budget by less than this is not worth dropping pages for.
constexpr uint64_t kLookSlackBytes = uint64_t{1} << 20;

uint64_t share_of(uint64_t limit, double share) {
  return static_cast<uint64_t>(share * static_cast<double>(limit));
}

}  // namespace

uint64_t build_memory_max(uint64_t limit) {
  return share_of(limit, kBuildShare);
}

uint64_t indexable_rows_max(uint64_t limit, uint32_t dimension) {
  if (limit == 0) return kSegmentRowsMax;
  const uint64_t room = build_memory_max(limit);
  uint64_t low = 0;
  uint64_t high = kSegmentRowsMax;
  while (low < high) {
    const uint64_t middle = low + (high - low + 1) / 2;
    if (build_bytes(middle, dimension, room) <= room) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

uint64_t mergeable_rows_max(uint64_t limit, uint32_t dimension) {
  const uint64_t rows = indexable_rows_max(limit, dimension);
  return rows < kIndexRowsMin ? kSegmentRowsMax : rows;
}

uint64_t merge_bytes(uint64_t rows) {
  return rows * kMergeRowBytes + kMergeFixedBytes;
}

Pinning::Pinning(EngineContext& context, std::function<Collections()> collections,
                 ProcessMemory& memory)
    : context_(context),
      collections_(std::move(collections)),
      memory_(memory),
      next_give_back_(context.clock->now() + kGiveBackEvery) {}

Pinning::~Pinning() {
  context_.budget.release(pinned_.load());
}

std::vector<std::shared_ptr<const SealedSegment>> Pinning::segments() const {
  std::vector<std::shared_ptr<const SealedSegment>> out;
  for (const auto& collection : collections_()) {
    for (const SegmentView& view : collection->sealed_segments()) {
      out.push_back(std::dynamic_pointer_cast<const SealedSegment>(view.segment));
    }
  }
  return out;
}

void Pinning::segments_changed() {
  if (context_.budget.limit() == 0) return;
  MutexLock lock(mutex_);
  decide();
}

bool Pinning::reserve(uint64_t bytes) {
  const uint64_t held = pinned_.load(std::memory_order_relaxed);
  if (bytes > held && !context_.budget.try_reserve(bytes - held)) return false;
  if (bytes < held) context_.budget.release(held - bytes);
  pinned_.store(bytes, std::memory_order_relaxed);
  return true;
}

void Pinning::count_all() {
  uint64_t bytes = 0;
  for (const auto& segment : segments()) bytes += segment->files_bytes();
  const uint64_t held = pinned_.load(std::memory_order_relaxed);
  // They are there, whatever the budget says.
  if (bytes > held) context_.budget.reserve_always(bytes - held);
  if (bytes < held) context_.budget.release(held - bytes);
  pinned_.store(bytes, std::memory_order_relaxed);
}

void Pinning::decide() {
  if (!context_.storage->persistent()) return count_all();
  const uint64_t limit = context_.budget.limit();
  const auto all = segments();
  std::vector<Residency> given(all.size(), Residency::kNothing);
  // Open rows may hold more than their share of the budget just now.
  const uint64_t held = pinned_.load(std::memory_order_relaxed);
  const uint64_t others = context_.budget.used() - std::min(context_.budget.used(), held + build_);
  const uint64_t room = std::min(share_of(limit, kSealedShare), limit - std::min(limit, others));
  const uint64_t most = room - std::min(room, build_);
  uint64_t pinned = 0;
  uint64_t on_demand = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    const uint64_t codes = all[i]->codes_bytes();
    if (codes > most - pinned) continue;
    given[i] = Residency::kCodes;
    pinned += codes;
  }
  for (size_t i = 0; i < all.size(); ++i) {
    const uint64_t files = all[i]->files_bytes();
    const uint64_t rest = files - all[i]->codes_bytes();
    if (given[i] == Residency::kNothing) {
      on_demand += files;
    } else if (rest > most - pinned) {
      on_demand += rest;
    } else {
      given[i] = Residency::kAll;
      pinned += rest;
    }
  }
  // A write may have taken the room meanwhile: then what was pinned stays, and nothing is added.
  const bool reserved = reserve(pinned);
  for (size_t i = 0; i < all.size(); ++i) {
    if (reserved || given[i] > all[i]->residency()) all[i]->set_residency(given[i]);
  }
  on_demand_.store(on_demand, std::memory_order_relaxed);
}

Result<Pinning::Build> Pinning::begin_build(uint64_t bytes) {
  if (context_.budget.limit() == 0) return Build(this);
  MutexLock lock(mutex_);
  const uint64_t limit = context_.budget.limit();
  if (bytes <= build_memory_max(limit)) {
    build_ = bytes;
    decide();  // pins make room
    if (context_.budget.try_reserve(bytes)) return Build(this);
    build_ = 0;
    decide();
  }
  return resource_exhausted("an index build needs " + std::to_string(bytes) +
                            " bytes of the memory budget of " + std::to_string(limit) + ", " +
                            std::to_string(context_.budget.used()) + " are held");
}

void Pinning::end_build() {
  memory_.give_back_freed();
  if (context_.budget.limit() == 0) return;
  MutexLock lock(mutex_);
  context_.budget.release(build_);
  build_ = 0;
  // Called at the end of a scope; without memory the next change decides.
  as_memory_allows([this]() NO_THREAD_SAFETY_ANALYSIS { decide(); });
}

// ---- what goes past the plan --------------------------------------------------------------------

void Pinning::look() {
  const MonotonicTime now = context_.clock->now();
  MonotonicTime give_back = next_give_back_.load(std::memory_order_relaxed);
  if (now >= give_back &&
      next_give_back_.compare_exchange_strong(give_back, now + kGiveBackEvery)) {
    memory_.give_back_freed();
  }
  const uint64_t limit = context_.budget.limit();
  if (limit == 0) return;
  MonotonicTime due = next_look_.load(std::memory_order_relaxed);
  if (now < due || !next_look_.compare_exchange_strong(due, now + kLookEvery)) return;
  const uint64_t before = memory_.resident_bytes();
  if (before <= limit) return;
  shrink_to(limit);
  const uint64_t after = memory_.resident_bytes();
  MutexLock lock(mutex_);
  const bool helped = after <= limit || after + kLookSlackBytes < before;
  rest_ = helped ? MonotonicTime::duration(kLookEvery)
                 : std::min<MonotonicTime::duration>(2 * rest_, kLookRestMax);
  next_look_.store(now + rest_, std::memory_order_relaxed);
}

void Pinning::shrink_to(uint64_t limit) {
  const auto all = segments();
  for (const auto& segment : all) {
    if (segment->residency() != Residency::kAll) {
      segment->forget_pages(segment->residency() == Residency::kNothing);
    }
  }
  if (memory_.resident_bytes() <= limit) return;
  memory_.give_back_freed();
  if (memory_.resident_bytes() <= limit) return;
  // Pinned codes come back with the next searches; what else was read of their files does not.
  for (const auto& segment : all) segment->forget_pages(true);
}

}  // namespace aionbd
