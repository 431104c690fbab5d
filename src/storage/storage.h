// Which bytes survive a crash. One log, immutable segment files, one manifest; nothing here knows
// what the bytes mean.
//
//   write:       append(record) -> lsn; commit(lsn) -> as durable as the policy says
//   checkpoint:  rotate_log() -> lsn; write_segment(...)...; publish(catalog, segments, lsn)
//   recovery:    open() -> catalog(), open_segment(...)..., replay(...)
//
// The manifest is the only root: it names every live segment file and the log position from which
// to replay. What it does not name is garbage and is removed at the next open or publish.
// File layouts: docs/format.md.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "aionbd/options.h"
#include "aionbd/status.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "io/file_system.h"
#include "storage/segment_file.h"

namespace aionbd {

struct BackupSource;

/// Position in the one history of a store: 1, 2, 3, ... per record. 0 = before everything.
using Lsn = uint64_t;

/// What a record does to the disk: on a full one, only what leads to less is taken.
enum class RecordEffect : uint8_t { kAdds, kFrees };

/// While it lives, the reserve is given to those who write, and nothing is added.
/// Thread safety: single owner. Must not outlive the storage.
class ReserveUse {
 public:
  virtual ~ReserveUse() = default;
};

/// What append gives and commit takes.
struct Ticket {
  Lsn lsn = 0;
  uint64_t generation = 0;
};

struct StorageOptions {
  std::string dir;
  bool persistent = true;  // false: no file is touched; append and commit succeed, segments live on
                           // the heap
  Durability durability;
  uint64_t reserve_bytes = 0;  // disk space set aside (space_reserve.h); 0: none
  uint32_t group_commit_batch_max = 16;
  std::chrono::milliseconds group_commit_delay{0};
  FileSystem* files = nullptr;   // REQUIRES: set when persistent
  const Clock* clock = nullptr;  // REQUIRES: set
  Logger logger;
};

/// Counted by storage, exported by the engine. Thread safety: safe.
struct StorageMetrics {
  Counter group_commits;        // groups written to the log
  Counter grouped_records;      // records in those groups
  Gauge group_queue_depth;      // records appended and not yet written
  Gauge wal_size_bytes;         // bytes of all live log files
  Gauge wal_tail_open;          // 1 while the last log file accepts records
  Counter wal_discarded_bytes;  // torn tail cut at open
  Gauge wal_file_bytes;         // bytes of the log file that records go to
  Histogram wal_append;         // write() of a group
  Histogram wal_sync;           // fdatasync of a group
};

/// Thread safety: safe. append/commit/sync, new_segment and open_segment from any thread;
/// rotate_log, publish and cut from one thread at a time; catalog and replay before the first
/// append.
class Storage {
 public:
  /// Takes the directory lock, reads the manifest, opens the log, cuts a torn tail (physically, and
  /// durably before the first append), removes garbage.
  /// Errors: in_use; corruption (manifest or log damaged: named file and offset); io_error.
  static Result<std::unique_ptr<Storage>> open(StorageOptions options);
  /// Makes the log durable if the policy ever syncs (a clean shutdown loses nothing), and closes.
  virtual ~Storage() = default;

  /// The engine's state as of the last publish; empty for a new store.
  virtual std::string_view catalog() const = 0;
  /// The log position of that publish: replay begins after it.
  virtual Lsn replay_after() const = 0;
  /// Every record after the position of the last publish, in order. A failing `apply` ends it.
  /// Streams: holds one record in memory at a time.
  virtual Status replay(const std::function<Status(Lsn, Bytes record)>& apply) = 0;

  /// Fixes the record's place in history. Does no I/O. Call in the order in which records are
  /// applied, one collection's records under one lock.
  /// Errors: failed_precondition when `generation` is not the current one: a group could not be
  /// written since, so the caller must first forget what it applied after `committed_lsn`;
  /// unavailable after a failed sync; storage_full for a record that adds, while the reserve is not
  /// whole. REQUIRES: record.size() <= kRecordBytesMax.
  virtual Result<Ticket> append(std::string record, uint64_t generation,
                                RecordEffect effect = RecordEffect::kAdds) = 0;
  /// Grows by one each time appended records were dropped because the log refused them (no space).
  virtual uint64_t generation() const = 0;
  /// Returns when the record is in the log as the durability policy asks: written to the operating
  /// system, and with sync_on_write also synced. One waiting thread writes and syncs for all.
  /// Errors: storage_full or io_error: the log was cut back to before this record, and neither it
  /// nor any later record of its generation happened; unavailable: a sync (or the cut) failed,
  /// writes are refused until the store is reopened, the outcome is unknown.
  /// If ok, `committed_through` gets the newest record of the ticket's generation that is as
  /// durable as this one: a group is committed at once.
  virtual Status commit(const Ticket& ticket, Lsn* committed_through = nullptr) = 0;
  /// Returns when everything appended so far is written and synced, whatever the policy.
  virtual Status sync() = 0;
  /// Every record up to here is as durable as the policy asks; monotonic.
  virtual Lsn committed_lsn() const = 0;
  /// The last lsn given out.
  virtual Lsn last_lsn() const = 0;

  /// Starts a new log file. Every record up to the returned lsn is in older files, and is durable.
  virtual Result<Lsn> rotate_log() = 0;
  /// A new immutable file (or heap image, when not persistent). Not live until published; removed
  /// when nobody holds it any more and it was not. The writer must not outlive the storage.
  /// `bytes_expected`: space taken at once, so that a file with no room for it fails before it took
  /// what others need. Errors: already_exists when this process has used `id` before; storage_full,
  /// io_error.
  virtual Result<std::unique_ptr<SegmentWriter>> new_segment(SegmentId id,
                                                             uint64_t bytes_expected = 0) = 0;
  /// Errors: corruption (size, header or table checksum), not_found.
  virtual Result<std::shared_ptr<SegmentFile>> open_segment(SegmentId id) = 0;
  /// As FileSystem::map_failures: while it is 0, no file that was opened has failed.
  virtual uint64_t map_failures() const { return 0; }
  /// Makes `catalog`, the set of live segments and "replay from after `replay_after`" the root, in
  /// one atomic step, then removes log files and segment files it does not need.
  virtual Status publish(std::string catalog, const std::vector<SegmentId>& live,
                         Lsn replay_after) = 0;

  /// One state of the store, for copying: the root as it is and the log with every record appended
  /// before the call. Writes wait for one sync of the log, reads for nothing. None of its files
  /// changes or goes while the pointer lives, which must not outlive the storage.
  /// Errors: failed_precondition when not persistent; unavailable after a failed sync; corruption,
  /// io_error (of the root).
  virtual Result<std::shared_ptr<const BackupSource>> cut() = 0;

  /// Ok, or storage_full while the reserve is not whole; looks now and then whether it can be made
  /// so. Does I/O only then. Ask it before work that ends in a record that adds.
  virtual Status admit_growth() { return Status(); }
  /// Gives the reserve to deletes and maintenance, once records that add are out of the way. Null:
  /// there is none.
  virtual std::unique_ptr<ReserveUse> use_reserve() { return nullptr; }
  /// Bytes of disk set aside now, and times they were given away.
  virtual uint64_t reserve_held_bytes() const { return 0; }
  virtual uint64_t reserve_uses() const { return 0; }

  /// Ok, or why writes are refused until the store is reopened.
  virtual Status health() const = 0;
  virtual const StorageMetrics& metrics() const = 0;
  virtual bool persistent() const = 0;
};

}  // namespace aionbd
