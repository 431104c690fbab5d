// Reads log files: one frame at a time, and the judgement of where a log ends. Never writes.
//
// The rules (valid frames, torn tail or damage) are numbered in docs/format.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "aionbd/status.h"
#include "base/bytes.h"
#include "io/file_system.h"
#include "storage/format.h"
#include "storage/storage.h"

namespace aionbd {

/// Reads a file forward through a window of a few MiB. Thread safety: single owner.
class FileWindow {
 public:
  FileWindow(FileSystem* files, std::string path, uint64_t file_bytes)
      : files_(files), path_(std::move(path)), file_bytes_(file_bytes) {}

  /// Bytes [offset, offset + size), valid until the next call. REQUIRES: within the file.
  /// Errors: io_error, also when the file has become shorter.
  Result<Bytes> at(uint64_t offset, uint64_t size);

  uint64_t file_bytes() const { return file_bytes_; }
  const std::string& path() const { return path_; }

 private:
  FileSystem* files_;
  std::string path_;
  uint64_t file_bytes_;
  std::string buffer_;
  uint64_t buffer_offset_ = 0;
};

/// One valid frame; `payload` lives until the next call of the reader.
struct Frame {
  FrameHeader header;
  Bytes payload;
};

/// Reads the frames of one log file from its start. Thread safety: single owner.
class LogReader {
 public:
  /// Verifies the file header. Errors: corruption (names the file); io_error, not_found.
  static Result<LogReader> open(FileSystem* files, const std::string& dir, uint64_t store_id,
                                Lsn first_lsn);

  /// The same for a file whose name may be anything; what it says of itself must be right.
  static Result<LogReader> open_alone(FileSystem* files, const std::string& path);
  /// For salvage: a reader of a file whose header is lost, at its first frame.
  static Result<LogReader> open_headless(FileSystem* files, const std::string& dir,
                                         uint64_t store_id, Lsn first_lsn);

  /// The next valid frame; nothing at the end of the file or at the first invalid frame, for good.
  /// Holds one payload in memory. Errors: io_error.
  Result<std::optional<Frame>> next();

  /// Why the last `next` gave nothing: empty at a clean end, else the rule that was broken.
  const std::string& problem() const { return problem_; }
  /// End of the last valid frame.
  uint64_t offset() const { return offset_; }
  uint64_t file_bytes() const { return window_.file_bytes(); }
  const std::string& path() const { return window_.path(); }
  uint64_t store_id() const { return store_id_; }
  Lsn first_lsn() const { return first_lsn_; }
  /// Number of the last record read; first_lsn - 1 before the first.
  Lsn last_lsn() const { return last_lsn_; }
  /// Highest durable lsn any frame so far claims.
  Lsn durable_lsn() const { return durable_lsn_; }
  uint64_t epoch() const { return epoch_; }

  /// Looks in the rest of the file, from `offset()`, for a frame header that proves that the record
  /// `lsn` was once durable; its offset, if there is one. Cost: one pass over the rest.
  Result<std::optional<uint64_t>> find_proof(Lsn lsn);

  /// For salvage: after `next` met damage, finds the next whole frame that can follow (a later
  /// number, no older epoch, every checksum right; its padding may be damaged, no checksum covers
  /// that) and makes the next `next` give it. False: there is none. Recovery never does this: it
  /// would step over a hole.
  Result<bool> skip_damage();

 private:
  LogReader(FileWindow window, uint64_t store_id, Lsn first_lsn, uint64_t epoch);
  static Result<LogReader> open_checked(FileSystem* files, const std::string& path,
                                        std::optional<uint64_t> store_id,
                                        std::optional<Lsn> first_lsn);
  uint64_t header_seed(uint64_t offset) const;

  FileWindow window_;
  uint64_t store_id_;
  Lsn first_lsn_;
  uint64_t epoch_;
  uint64_t offset_;
  uint64_t salvaged_offset_ = 0;  // of the frame that skip_damage found last
  Lsn last_lsn_;
  Lsn durable_lsn_;
  bool ended_ = false;
  std::string problem_;
};

/// One log file as found.
struct LogFile {
  Lsn first_lsn = 0;
  uint64_t bytes = 0;
};

/// What a log holds and where it ends.
struct LogScan {
  std::vector<LogFile> files;  // those needed, ascending; the last one takes new records
  Lsn replay_after = 0;
  Lsn last_lsn = 0;
  Lsn durable_lsn = 0;           // highest lsn something on the disk claims to be durable
  uint64_t epoch = 0;            // in force at the end
  uint64_t end_offset = 0;       // of the last valid frame of the last file
  uint64_t discarded_bytes = 0;  // of the torn tail behind end_offset
  std::string torn_why;          // which rule the tail broke; empty without a torn tail
  bool last_is_debris = false;   // the last file has no valid header and must be made anew
};

/// Reads and judges the log whose files begin at `first_lsns` (ascending). Changes nothing.
/// `durable_floor`: the manifest's durable lsn.
/// Errors: corruption (gap, damage of what was durable; named file and offset); io_error.
Result<LogScan> scan_log(FileSystem* files, const std::string& dir, uint64_t store_id,
                         std::vector<Lsn> first_lsns, Lsn replay_after, Lsn durable_floor);

/// Calls `apply` with every record of a scanned log after `scan.replay_after`, in order.
Status replay_log(FileSystem* files, const std::string& dir, uint64_t store_id, const LogScan& scan,
                  const std::function<Status(Lsn, Bytes)>& apply);

}  // namespace aionbd
