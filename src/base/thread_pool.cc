// How helpers find jobs, and how a caller knows that all of its job is done.
#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <exception>

namespace aionbd {

struct ThreadPool::Job {
  size_t count = 0;
  const std::function<void(size_t)>* body = nullptr;
  std::atomic<size_t> next{0};
  Mutex mutex;
  CondVar finished;
  size_t done GUARDED_BY(mutex) = 0;
  std::exception_ptr failure GUARDED_BY(mutex);  // the first one
};

ThreadPool::ThreadPool(size_t threads) {
  threads_.reserve(threads);
  for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
}

ThreadPool::~ThreadPool() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void ThreadPool::work_on(Job& job) {
  size_t done = 0;
  for (;;) {
    const size_t i = job.next.fetch_add(1, std::memory_order_relaxed);
    if (i >= job.count) break;
    try {
      (*job.body)(i);
    } catch (...) {
      // It belongs to the caller, whose frame must stay until all helpers are done.
      MutexLock lock(job.mutex);
      if (!job.failure) job.failure = std::current_exception();
    }
    ++done;
  }
  if (done == 0) return;
  MutexLock lock(job.mutex);
  job.done += done;
  if (job.done == job.count) job.finished.notify_all();
}

void ThreadPool::for_each(size_t count, const std::function<void(size_t)>& body) {
  if (count == 0) return;
  if (count == 1 || threads_.empty()) {
    for (size_t i = 0; i < count; ++i) body(i);
    return;
  }
  auto job = std::make_shared<Job>();
  job->count = count;
  job->body = &body;
  {
    MutexLock lock(mutex_);
    jobs_.push_back(job);
  }
  wake_.notify_all();
  work_on(*job);
  {
    // No helper may begin on it after this: `body` dies with our caller's frame.
    MutexLock lock(mutex_);
    std::erase(jobs_, job);
  }
  MutexLock lock(job->mutex);
  while (job->done < count) job->finished.wait(job->mutex);
  if (job->failure) std::rethrow_exception(job->failure);
}

void ThreadPool::run() {
  for (;;) {
    std::shared_ptr<Job> job;
    {
      MutexLock lock(mutex_);
      while (!stopping_ && jobs_.empty()) wake_.wait(mutex_);
      if (stopping_) return;
      job = jobs_.front();
      if (job->next.load(std::memory_order_relaxed) >= job->count) {
        std::erase(jobs_, job);
        continue;
      }
    }
    work_on(*job);
  }
}

}  // namespace aionbd
