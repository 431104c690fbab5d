// The only door to files. Per call: what survives a power cut.
//
// Media assumptions (docs/format.md): single bytes are atomic; a sync that returned success is
// durable; writing a range does not damage its neighbours.
//
// Paths are plain strings; "dir/name". Implementations never follow a symbolic link as the last
// component of a path they create or open for writing.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "aionbd/status.h"
#include "base/bytes.h"

namespace aionbd {

/// An append-only file being written. Thread safety: single owner.
class WritableFile {
 public:
  virtual ~WritableFile() = default;  // closes; errors of close are lost, so sync first

  /// Appends all parts in order, one system call where possible. After an error an unknown part of
  /// them may be in the file. Nothing survives a power cut before `sync`.
  /// Errors: storage_full (ENOSPC, EDQUOT, file-size limit), io_error.
  virtual Status append(std::span<const Bytes> parts) = 0;
  Status append(Bytes bytes) { return append(std::span<const Bytes>(&bytes, 1)); }

  /// Makes the content and length durable (fdatasync). The name is durable only after
  /// `FileSystem::sync_dir` of its directory. Never retry after an error: the kernel may have
  /// dropped the data and report success the second time.
  virtual Status sync() = 0;

  /// Cuts the file to `size` bytes; the next append goes there. Space allocated beyond goes back.
  virtual Status truncate(uint64_t size) = 0;

  /// Takes space so that the file can grow to `bytes` and meet no storage_full on the way. Its size
  /// and content stay. Not durable: a power cut may give the space back.
  /// Errors: storage_full, and nothing is kept; failed_precondition when the file system cannot.
  virtual Status allocate(uint64_t bytes) = 0;

  /// Bytes in the file: those before opening plus those appended.
  virtual uint64_t size() const = 0;
};

/// A whole file, readable in place. Thread safety: safe.
class MappedFile {
 public:
  virtual ~MappedFile() = default;
  virtual Bytes bytes() const = 0;
  /// Copies the bytes from `offset` on to `out`, which then are not resident for having been read.
  /// REQUIRES: they lie within the file. Errors: io_error.
  virtual Status read_at(uint64_t offset, std::span<std::byte> out) const {
    if (!out.empty()) std::memcpy(out.data(), bytes().data() + offset, out.size());
    return Status();
  }
  /// Some bytes could not be read: since then zeros may have been found in their place, and what
  /// was computed from them means nothing. Never becomes false again. Cost: an atomic load.
  virtual bool failed() const { return false; }
  /// Says that the bytes will not be needed for a while: they leave this process's resident memory,
  /// not the system's cache, and come back when touched.
  virtual void forget_pages() const {}
};

/// Held from `FileSystem::lock` to destruction (or the end of the process).
class FileLock {
 public:
  virtual ~FileLock() = default;
};

/// Thread safety: safe.
class FileSystem {
 public:
  virtual ~FileSystem() = default;

  /// Makes `path` and its missing parents, and makes each directory it made durable in its parent.
  virtual Status make_dirs(const std::string& path) = 0;
  /// Names (not paths) in `dir`, sorted, without "." and "..".
  virtual Result<std::vector<std::string>> list(const std::string& dir) = 0;
  /// Makes the entries of `dir` durable: names created, renamed and removed before the call.
  virtual Status sync_dir(const std::string& dir) = 0;

  /// A new, empty file; an existing one is cut to nothing.
  virtual Result<std::unique_ptr<WritableFile>> create(const std::string& path) = 0;
  /// An existing file, to append at its end. Errors: not_found.
  virtual Result<std::unique_ptr<WritableFile>> open_for_append(const std::string& path) = 0;
  /// The whole content. Errors: not_found; resource_exhausted when longer than `size_max`.
  virtual Result<std::string> read(const std::string& path, uint64_t size_max) = 0;
  /// Up to `size` bytes from `offset`; fewer only at the end of the file.
  virtual Result<std::string> read_at(const std::string& path, uint64_t offset, uint64_t size) = 0;
  /// The whole file as it is now. REQUIRES: nobody writes it while mapped. Errors: not_found.
  virtual Result<std::unique_ptr<MappedFile>> map(const std::string& path) = 0;
  /// How many maps have failed so far, whoever made them. Cost: an atomic load.
  virtual uint64_t map_failures() const { return 0; }
  virtual Result<uint64_t> file_size(const std::string& path) = 0;
  /// Bytes that files in `dir` may still take, as the file system tells a process without
  /// privileges; UINT64_MAX when it does not tell. A hint: others write, too, files take whole
  /// blocks, and a quota is not in it. Errors: not_found.
  virtual Result<uint64_t> free_bytes(const std::string& dir) = 0;

  /// Replaces `to` by `from`, atomically for readers; durable after sync_dir. After a power cut
  /// before that, either name may be there, and unsynced content of `from` may be lost.
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  /// Removes a file; undone by a power cut before sync_dir. Errors: not_found.
  virtual Status remove(const std::string& path) = 0;

  /// Locks `path` (made if missing) against every other process. Errors: in_use.
  virtual Result<std::unique_ptr<FileLock>> lock(const std::string& path) = 0;
  /// Whether somebody holds that lock now. Makes and changes nothing; a missing file is not locked.
  virtual Result<bool> is_locked(const std::string& path) = 0;

  /// Exchanges two names in one step, files or directories; durable after sync_dir.
  /// Errors: failed_precondition when the file system cannot.
  virtual Status exchange(const std::string& a, const std::string& b) = 0;
};

/// "a/b" of "a/b/c" and of "a/b/c/"; "." of "c"; "/" of "/c".
std::string parent_of(const std::string& path);

/// The machine's files; lives for ever.
FileSystem& posix_file_system();

}  // namespace aionbd
