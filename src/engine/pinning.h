// What of the sealed data may be resident when it is larger than the memory budget.
//
// Segment and index files are mapped and read in place; pages that were touched stay resident, and
// the kernel maps sixteen around each. Within the budget that is the fastest there is. Beyond it, a
// few searches over such maps would make the whole data set resident. So with a limit each segment
// is given one of three (Residency): all of it is read in place; or what walks need of its indexes
// (codes and edges) is, and rows are copied from the file; or nothing is, then searches visit lists
// and copy what they need. What is read in place is "pinned": counted in the budget.
//
// Who gets what is decided anew whenever segments change, by one pass in the order of collections
// and segments: first codes and edges of each segment as long as they fit, then with what is left
// the rows. A build of an index takes its memory out of the same share, so pins shrink while it
// runs.
//
//     budget   |-------- pins and the build in progress (kSealedShare) --------|-- open rows --|
//                              build at most kBuildShare of all
//
// What goes past the plan (payloads and ids read in place, freed memory that the heap keeps) is
// looked at as the process' resident memory, every kLookEvery at most: over the budget, files that
// are not pinned leave it first, then freed memory is given back, then the rows of the pinned.
//
// Without a limit nothing is decided and everything is read in place; freed memory is given back
// every kGiveBackEvery all the same. A store in memory cannot leave anything on disk: there the
// bytes are counted, and builds and writes find less room.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "base/mutex.h"
#include "engine/context.h"
#include "engine/sealed_segment.h"
#include "engine/stored_collection.h"
#include "io/process_memory.h"

namespace aionbd {

/// Of the budget: what pins and builds may take together. The rest is for open rows.
inline constexpr double kSealedShare = 0.625;
/// Of the budget: what one build may take. Segments are merged for indexing up to what fits.
inline constexpr double kBuildShare = 0.375;
/// Rows below which a scan is quick anyway, and no index is built.
inline constexpr uint64_t kIndexRowsMin = 4096;

/// Fewer looks than this would let a scan of payloads run far past the budget; each costs
/// microseconds.
inline constexpr std::chrono::milliseconds kLookEvery{50};
/// After a look that could not help.
inline constexpr std::chrono::milliseconds kLookRestMax{5000};

/// Freed memory is given back once in so long while writes come, with a limit or without: between
/// what stays, batches and checkpoints leave free pieces that would add up for days.
inline constexpr std::chrono::seconds kGiveBackEvery{60};

/// What one build may take; 0: any amount.
uint64_t build_memory_max(uint64_t limit);

/// The most rows of a segment whose index can be built within a budget; with limit 0 any number.
uint64_t indexable_rows_max(uint64_t limit, uint32_t dimension);

/// The most rows to merge into one segment: what can be indexed. Where the budget is too small for
/// any index, any number.
uint64_t mergeable_rows_max(uint64_t limit, uint32_t dimension);

/// Memory that merging segments into one takes besides the files.
uint64_t merge_bytes(uint64_t rows);

/// Thread safety: safe.
class Pinning {
 public:
  using Collections = std::vector<std::shared_ptr<StoredCollection>>;
  /// `memory` must outlive it.
  Pinning(EngineContext& context, std::function<Collections()> collections, ProcessMemory& memory);
  ~Pinning();

  /// Decides anew. Cost: a pass over all segments.
  void segments_changed() EXCLUDES(mutex_);
  /// Looks at the resident memory, if it is time. Cost: an atomic load if it is not.
  void look() EXCLUDES(mutex_);

  /// What a build holds of the budget, until it ends; what it freed is given back to the system
  /// then. Thread safety: single owner.
  class Build {
   public:
    Build(Build&& other) noexcept : pinning_(std::exchange(other.pinning_, nullptr)) {}
    Build(const Build&) = delete;
    Build& operator=(const Build&) = delete;
    Build& operator=(Build&&) = delete;
    ~Build() {
      if (pinning_ != nullptr) pinning_->end_build();
    }

   private:
    friend class Pinning;
    explicit Build(Pinning* pinning) : pinning_(pinning) {}
    Pinning* pinning_;
  };
  /// With a budget, one at a time. Errors: resource_exhausted, when open rows hold the memory now
  /// or it can never fit.
  Result<Build> begin_build(uint64_t bytes) EXCLUDES(mutex_);

  uint64_t pinned_bytes() const { return pinned_.load(std::memory_order_relaxed); }
  /// Files that are read in place neither wholly nor for their codes.
  uint64_t on_demand_bytes() const { return on_demand_.load(std::memory_order_relaxed); }

 private:
  void end_build() EXCLUDES(mutex_);
  void decide() REQUIRES(mutex_);
  void count_all() REQUIRES(mutex_);
  /// Changes what is reserved for pins; false, and nothing changed, when it cannot grow so far.
  bool reserve(uint64_t bytes) REQUIRES(mutex_);
  std::vector<std::shared_ptr<const SealedSegment>> segments() const;
  void shrink_to(uint64_t limit);

  // Constant after construction.
  EngineContext& context_;
  const std::function<Collections()> collections_;
  ProcessMemory& memory_;

  // Own synchronisation.
  std::atomic<MonotonicTime> next_look_{MonotonicTime()};
  std::atomic<MonotonicTime> next_give_back_;
  std::atomic<uint64_t> pinned_{0};
  std::atomic<uint64_t> on_demand_{0};

  /// Held while deciding. After maintenance's job lock and before the engine's name map in the lock
  /// order.
  Mutex mutex_;
  uint64_t build_ GUARDED_BY(mutex_) = 0;
  MonotonicTime::duration rest_ GUARDED_BY(mutex_) = kLookEvery;
};

}  // namespace aionbd
