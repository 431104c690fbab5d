// One writer swaps an immutable value; readers take a reference to the current one.
//
// A mutex around one shared_ptr copy, held for a few nanoseconds and never across anything else.
// std::atomic<std::shared_ptr> would do the same with a hidden spin bit, and GCC 12's reports a
// race under the thread sanitizer; a silent sanitizer is worth more than the difference.
#pragma once

#include <memory>
#include <utility>

#include "base/mutex.h"

namespace aionbd {

/// Thread safety: safe.
template <typename T>
class Published {
 public:
  Published() = default;
  explicit Published(std::shared_ptr<const T> value) : value_(std::move(value)) {}

  std::shared_ptr<const T> get() const {
    MutexLock lock(mutex_);
    return value_;
  }
  void set(std::shared_ptr<const T> value) {
    {
      MutexLock lock(mutex_);
      value_.swap(value);
    }
    // The old value dies here, outside the lock: it may free a great deal.
  }

 private:
  mutable Mutex mutex_;
  std::shared_ptr<const T> value_ GUARDED_BY(mutex_);
};

}  // namespace aionbd
