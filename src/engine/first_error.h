// The first of the errors that several threads may meet.
#pragma once

#include <atomic>

#include "aionbd/status.h"
#include "base/mutex.h"

namespace aionbd {

/// Thread safety: safe.
class FirstError {
 public:
  void note(const Status& status) {
    MutexLock lock(mutex_);
    if (status_.ok()) status_ = status;
    failed_.store(true, std::memory_order_relaxed);
  }
  bool failed() const { return failed_.load(std::memory_order_relaxed); }
  Status status() {
    MutexLock lock(mutex_);
    return status_;
  }

 private:
  Mutex mutex_;
  Status status_ GUARDED_BY(mutex_);
  std::atomic<bool> failed_{false};
};

}  // namespace aionbd
