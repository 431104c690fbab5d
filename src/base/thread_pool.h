// Threads that help a caller with one divisible job at a time each.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace aionbd {

/// Thread safety: safe.
class ThreadPool {
 public:
  /// `threads` helpers beside the caller of `for_each`; 0 is allowed and means no help.
  explicit ThreadPool(size_t threads);
  /// Waits for running jobs.
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// Calls body(0) ... body(count - 1), each once, on the caller and on idle helpers; returns when
  /// all are done. The caller always works itself, so a busy pool delays nobody.
  /// What `body` throws (memory may run out) reaches the caller when all others are done; the first
  /// of several does.
  void for_each(size_t count, const std::function<void(size_t)>& body);

  size_t helpers_count() const { return threads_.size(); }

 private:
  struct Job;
  void run();
  static void work_on(Job& job);

  Mutex mutex_;
  CondVar wake_;
  std::vector<std::shared_ptr<Job>> jobs_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;  // constant after construction
};

}  // namespace aionbd
