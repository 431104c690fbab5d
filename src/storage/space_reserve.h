// Disk space that is set aside, so that a full disk can be emptied: deletes, checkpoints and
// compaction get it when they meet storage_full, and until it is back nothing is added.
//
// It is space allocated to an empty file (docs/format.md, "Reserve"): giving it is cutting that
// file, taking it back is one call that fails while the space is not there. Nothing depends on
// the file: without it a store works, and takes no data until it can be made.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "aionbd/status.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "io/file_system.h"

namespace aionbd {

struct SpaceReserveOptions {
  FileSystem* files = nullptr;
  const Clock* clock = nullptr;
  std::string path;
  uint64_t bytes = 0;  // 0: no reserve; an old one is removed
  Logger logger;
};

/// Thread safety: safe.
class SpaceReserve {
 public:
  explicit SpaceReserve(SpaceReserveOptions options) : options_(std::move(options)) {}

  /// Takes the space. Not getting it is no error: then nothing may be added until it is there.
  void start() EXCLUDES(mutex_);

  bool configured() const { return options_.bytes != 0; }
  /// Whether data may be added. Cost: an atomic load.
  bool growth_allowed() const { return !configured() || whole_.load(std::memory_order_acquire); }
  /// The same, after trying to take the space back, where it is time to. Errors: storage_full.
  Status admit_growth() EXCLUDES(mutex_);

  /// From now on nothing may be added, and nobody takes the space back, until `end_use`.
  void refuse_growth() EXCLUDES(mutex_);
  /// Gives the space to whoever writes now. REQUIRES: between refuse_growth and end_use.
  void give() EXCLUDES(mutex_);
  /// The last user takes the space back, if it is there.
  void end_use() EXCLUDES(mutex_);

  uint64_t held_bytes() const { return growth_allowed() ? options_.bytes : 0; }
  /// Times the space was given.
  const Counter& given_count() const { return given_; }

 private:
  bool take() REQUIRES(mutex_);
  Status fill_with_zeros() REQUIRES(mutex_);

  const SpaceReserveOptions options_;
  std::atomic<bool> whole_{false};
  Counter given_;

  /// Held during the calls on the file; a leaf in the lock order.
  Mutex mutex_;
  std::unique_ptr<WritableFile> file_
      GUARDED_BY(mutex_);  // kept open: no descriptor is needed then
  std::optional<MonotonicTime> next_try_ GUARDED_BY(mutex_);
  uint64_t users_ GUARDED_BY(mutex_) = 0;
};

}  // namespace aionbd
