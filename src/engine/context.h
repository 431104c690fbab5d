// What all parts of one open database share.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "aionbd/options.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/memory_guard.h"
#include "base/mutex.h"
#include "base/thread_pool.h"
#include "engine/budget.h"
#include "engine/engine_metrics.h"
#include "storage/storage.h"

namespace aionbd {

/// Rows below which even what is searched all the time gets no index.
inline constexpr uint64_t kIndexRowsAsked = 512;
/// Reads of one row that cost as much as its part in building an index: some 150 us at 784
/// dimensions, on each of two cores, against 0.12 us.
inline constexpr uint64_t kReadsPerBuild = 2500;

class StoredCollection;

/// Lives as long as the database or any handle to one of its collections.
/// Thread safety: safe.
struct EngineContext {
  EngineContext(DatabaseOptions database_options, const Clock* clock_source)
      : options(std::move(database_options)),
        clock(clock_source),
        logger(options.log),
        budget(options.memory_budget_bytes) {}

  // Constant after construction (storage and pool: after open, until close).
  const DatabaseOptions options;
  const Clock* const clock;
  const Logger logger;
  FileSystem* files = nullptr;  // set when persistent
  std::unique_ptr<Storage> storage;
  std::unique_ptr<ThreadPool> pool;
  std::function<void()> after_write;  // runs or schedules the maintenance a write made due
  std::function<Status(StoredCollection&)> optimize;
  std::function<void()> index_wanted = [] {};      // an index may be missing now
  std::function<void()> segments_changed = [] {};  // of any collection
  std::function<void()> look_at_memory = [] {};    // bytes of files may have become resident
  std::function<void()> wait_for_job = [] {
  };  // until no checkpoint, merge or index file is being written
  std::function<void()> sealing_asked = [] {};  // searches read many open rows
  std::function<void()> coding_asked = [] {};   // a collection has asked_codes
  std::function<void()> audit_wanted = [] {};   // a query was kept that was not audited yet

  // Own synchronisation.
  MemoryBudget budget;
  EngineMetrics metrics;
  std::atomic<SegmentId> next_segment{1};
  std::atomic<uint64_t> writes_since_checkpoint{0};
  std::atomic<bool> rows_to_index{false};   // a collection has, or had, kIndexRowsAsked
  std::atomic<bool> sealing_wanted{false};  // a write was refused for memory that open rows hold

  /// Bytes of one log file that make a checkpoint due. Sealing what they hold takes at most twice
  /// as many, so it fits in the disk reserve.
  int64_t log_bytes_max() const {
    constexpr uint64_t kWithoutReserve = uint64_t{32} << 20;
    const uint64_t reserve = options.disk_reserve_bytes;
    return static_cast<int64_t>(reserve == 0 ? kWithoutReserve : reserve / 2);
  }

  SegmentId new_segment_id() { return next_segment.fetch_add(1, std::memory_order_relaxed); }

  // ---- calls in progress, so that close can wait for them ----
  bool enter() EXCLUDES(mutex) {
    MutexLock lock(mutex);
    if (closed) return false;
    ++calls;
    return true;
  }
  void leave() EXCLUDES(mutex) {
    MutexLock lock(mutex);
    if (--calls == 0 && closed) idle.notify_all();
  }
  /// Refuses calls from now on, waits for those in progress.
  void close() EXCLUDES(mutex) {
    MutexLock lock(mutex);
    closed = true;
    while (calls > 0) idle.wait(mutex);
  }

  /// Held while an index file is written.
  Mutex index_file_mutex;

  Mutex mutex;
  CondVar idle;
  bool closed GUARDED_BY(mutex) = false;
  uint64_t calls GUARDED_BY(mutex) = 0;
};

/// A call in progress. Thread safety: single owner.
class CallScope {
 public:
  explicit CallScope(EngineContext& context) : context_(context), entered_(context.enter()) {}
  ~CallScope() {
    if (entered_) context_.leave();
  }
  CallScope(const CallScope&) = delete;
  CallScope& operator=(const CallScope&) = delete;

  Status status() const { return entered_ ? Status() : unavailable("the database is closed"); }

 private:
  EngineContext& context_;
  const bool entered_;
};

/// A door of the database: `call` (a Status or a Result) while it is open, with an error when
/// memory runs out.
template <typename Call>
auto entered(EngineContext& context, Call call) -> decltype(call()) {
  const CallScope scope(context);
  RETURN_IF_ERROR(scope.status());
  return within_memory(call);
}

}  // namespace aionbd
