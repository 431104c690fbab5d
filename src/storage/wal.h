// The write side of the log: order, group commit, sync policy, and what happens when the medium
// refuses. How it works: wal.cc. Reading and judging a log: log_reader.h.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "aionbd/status.h"
#include "base/mutex.h"
#include "base/sleep_word.h"
#include "io/file_system.h"
#include "storage/format.h"
#include "storage/log_reader.h"
#include "storage/space_reserve.h"
#include "storage/storage.h"

namespace aionbd {

struct WalOptions {
  FileSystem* files = nullptr;
  const Clock* clock = nullptr;
  StorageMetrics* metrics = nullptr;
  Logger logger;
  std::string dir;
  uint64_t store_id = 0;
  const SpaceReserve* reserve = nullptr;  // whether records that add are taken
  Durability durability;
  uint32_t group_commit_batch_max = 16;
  std::chrono::milliseconds group_commit_delay{0};
};

/// Makes the log file that begins with `first_lsn`: header and name are durable on return.
/// Returns the file, ready for its first frame. On an error `sync_failed` tells whether it was a
/// sync, after which nothing may be believed.
Result<std::unique_ptr<WritableFile>> create_log_file(FileSystem* files, const std::string& dir,
                                                      uint64_t store_id, Lsn first_lsn,
                                                      uint64_t epoch, bool* sync_failed);

/// The log as it is at one moment.
struct LogCut {
  std::vector<LogFile> files;  // ascending; bytes: what is there now, and will not change
  Lsn last_lsn = 0;            // of the last record in them
};

/// Thread safety: safe; `rotate` and `remove_obsolete` from one thread at a time.
class Wal {
  struct Key {};  // only `open` constructs

 public:
  /// Takes over a scanned log: cuts the torn tail durably, makes a debris file anew, starts an
  /// epoch.
  static Result<std::unique_ptr<Wal>> open(WalOptions options, const LogScan& scan);
  /// Writes what is queued; if the policy ever syncs, syncs and seals.
  /// REQUIRES: no call in progress.
  ~Wal();
  Wal(Key, WalOptions options, const LogScan& scan);
  Wal(const Wal&) = delete;
  Wal& operator=(const Wal&) = delete;

  // As in Storage.
  Result<Ticket> append(std::string record, uint64_t generation, RecordEffect effect);
  Status commit(const Ticket& ticket, Lsn* committed_through);
  Status sync();
  Result<Lsn> rotate();
  /// Everything appended before the call, written and synced. The files are only ever appended to;
  /// the caller sees to it that they are not removed.
  Result<LogCut> cut();
  uint64_t generation() const;
  Lsn committed_lsn() const;
  Lsn last_lsn() const;
  Lsn durable_lsn() const;
  Status health() const;

  /// Returns when everything appended before is written or refused.
  void write_queued();

  /// Refuses all writes from now on; the first reason stays. For syncs that failed elsewhere.
  void fail_stop(const Status& cause);

  /// Removes the files whose records are all at or below `replay_after`. A file that cannot be
  /// removed is tried again next time.
  void remove_obsolete(Lsn replay_after);

 private:
  struct Pending {
    Lsn lsn = 0;
    std::string record;
    uint64_t payload_checksum = 0;
  };
  /// A thread waiting for its record to be decided, or (without a ticket) for the file. They are
  /// linked, so that waiting allocates nothing. Whoever changes `state` touches the waiter for the
  /// last time with that: a thread that sees the change may be gone, and its waiter with it.
  struct Waiter {
    enum State : uint32_t { kWaiting, kOwner, kDecided };
    const Ticket* ticket = nullptr;
    Lsn committed_through = 0;  // when decided: 0 where the record was refused
    Waiter* next = nullptr;
    SleepWord state{kWaiting};
  };
  /// Owns the file from here to its end. REQUIRES: the mutex is held at both.
  class Owner {
   public:
    explicit Owner(Wal& wal) NO_THREAD_SAFETY_ANALYSIS : wal_(wal) { wal_.acquire(); }
    ~Owner() NO_THREAD_SAFETY_ANALYSIS { wal_.release(); }
    Owner(const Owner&) = delete;
    Owner& operator=(const Owner&) = delete;

   private:
    Wal& wal_;
  };
  /// How a generation ended.
  struct Ending {
    uint64_t generation = 0;
    Lsn last_written = 0;
    Status cause;
  };

  Status take_over(const LogScan& scan);
  bool policy_ever_syncs() const;

  // The file has one owner at a time.
  void acquire() REQUIRES(mutex_);
  void release() REQUIRES(mutex_);
  void enqueue(Waiter& waiter) REQUIRES(mutex_);
  Waiter* take_decided() REQUIRES(mutex_);
  static void wake(Waiter* waiter, Waiter::State state);
  static void wake_all(Waiter* decided);
  void wake_decided() REQUIRES(mutex_);
  bool is_decided(const Ticket& ticket) const REQUIRES(mutex_);
  Status refusal_of(const Ticket& ticket) const REQUIRES(mutex_);
  const Ending* ending_of(uint64_t generation) const REQUIRES(mutex_);
  Lsn committed_with(const Ticket& ticket) const REQUIRES(mutex_);

  // Called by the owner; they give up the mutex while they do I/O.
  void write_group() REQUIRES(mutex_);
  void write_until(Lsn target) REQUIRES(mutex_);
  void sync_written() REQUIRES(mutex_);
  void settle() REQUIRES(mutex_);
  Status switch_file() REQUIRES(mutex_);
  void wait_for_company() REQUIRES(mutex_);
  void drop_generation(const Status& cause) REQUIRES(mutex_);
  void fail_stop_locked(const Status& cause) REQUIRES(mutex_);
  void note_written(Lsn lsn, bool synced) REQUIRES(mutex_);

  // I/O of the owner, without the mutex.
  struct GroupResult {
    Status written;       // ok, or why the group was refused
    Status fatal;         // not ok: fail-stop
    bool synced = false;  // everything in the file is durable
  };
  GroupResult write_and_sync(const std::vector<Pending>& group, Lsn before, Lsn durable);
  void close() EXCLUDES(mutex_);
  Status append_frames(const std::vector<Pending>& group, Lsn durable);
  Status append_mark(FrameType type, Lsn last, Lsn durable);
  Status cut_back();
  Status timed_sync();

  void run_timer();

  const WalOptions options_;

  // The owner's alone; not guarded by the mutex.
  std::unique_ptr<WritableFile> file_;
  /// False until the log was opened in full: what failed halfway (a sync, an epoch) is not sealed.
  bool taken_over_ = false;
  std::string path_;
  uint64_t file_end_ = 0;  // end of the last whole frame
  Lsn file_first_lsn_ = 0;
  uint64_t epoch_ = 0;
  bool needs_epoch_ = false;  // frames were cut off here: start an epoch before the next frame
  uint64_t unsynced_count_ = 0;
  // With room for the largest group from the start: writing one allocates nothing.
  std::vector<Pending> group_;
  std::vector<FrameHeader> headers_;
  std::vector<Bytes> parts_;

  mutable Mutex mutex_;
  bool owned_ GUARDED_BY(mutex_) = false;
  Waiter* waiters_ GUARDED_BY(mutex_) = nullptr;  // first come, first served
  std::deque<Pending> queue_ GUARDED_BY(mutex_);
  Lsn last_lsn_ GUARDED_BY(mutex_) = 0;       // given out
  Lsn written_lsn_ GUARDED_BY(mutex_) = 0;    // in the file
  Lsn synced_lsn_ GUARDED_BY(mutex_) = 0;     // on the medium
  Lsn committed_lsn_ GUARDED_BY(mutex_) = 0;  // as durable as the policy asks
  uint64_t generation_ GUARDED_BY(mutex_) = 1;
  std::deque<Ending> endings_ GUARDED_BY(mutex_);
  Status health_ GUARDED_BY(mutex_);
  std::vector<LogFile> files_ GUARDED_BY(mutex_);  // bytes of the last one: as of its opening
  CondVar company_ GUARDED_BY(mutex_);
  bool wants_company_ GUARDED_BY(mutex_) = false;

  CondVar timer_wake_ GUARDED_BY(mutex_);
  MonotonicTime oldest_unsynced_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread timer_;  // constant after construction
};

}  // namespace aionbd
