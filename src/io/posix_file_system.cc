// The only open, write, fsync, rename and mmap of the program.
//
// Every descriptor is O_CLOEXEC; files are 0600 and directories 0700 whatever the umask adds; a
// symbolic link as last component is refused (O_NOFOLLOW). Short writes and EINTR are continued
// from what the system call returned. A write beyond a file-size limit raises SIGXFSZ, whose
// default action kills the process: the host program must ignore it, then the call returns EFBIG
// and we report storage_full.
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

#include "base/check.h"
#include "base/memory_guard.h"
#include "base/mutex.h"
#include "io/file_system.h"
#include "io/mapped_range.h"

namespace aionbd {
namespace {

constexpr mode_t kFileMode = 0600;
constexpr mode_t kDirMode = 0700;
/// Parts of one writev; the kernel's own limit.
constexpr size_t kPartsMax = IOV_MAX;
/// Bytes of one read; Linux stops at 2^31 - 4096 anyway.
constexpr size_t kReadBytesMax = size_t{1} << 30;
/// Read of a file that states no size: enough for what /proc says of a process or a machine.
constexpr uint64_t kSizelessBytesMax = uint64_t{1} << 20;

Code code_of(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return Code::kStorageFull;
    case ENOENT:
    case ENOTDIR: return Code::kNotFound;
    default: return Code::kIoError;
  }
}

/// "cannot sync 'dir/name': Input/output error".
Status error_of(std::string_view what, const std::string& path, int error) {
  // Without memory for the text the code must still be told: callers act by it.
  Status out(code_of(error), "I/O error");
  as_memory_allows([&] {
    std::array<char, 256> buffer{};
    // The GNU strerror_r returns the text, which may or may not be in the buffer.
    const char* text = strerror_r(error, buffer.data(), buffer.size());
    std::string message = "cannot ";
    message.append(what).append(" '").append(path).append("': ").append(text);
    out = Status(code_of(error), std::move(message));
  });
  return out;
}

template <typename Call>
auto retry_on_eintr(Call call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

/// Owns a descriptor. Thread safety: compatible.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);  // not retried on EINTR: on Linux the descriptor is gone either way
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

Result<Descriptor> open_file(const std::string& path, int flags, std::string_view what) {
  const int fd = retry_on_eintr(
      [&] { return ::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, kFileMode); });
  if (fd < 0) return error_of(what, path, errno);
  return Descriptor(fd);
}

/// Size of an open regular file. Errors: io_error when it is something else (a pipe would block).
Result<uint64_t> size_of(const Descriptor& file, const std::string& path) {
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return error_of("stat", path, errno);
  if (!S_ISREG(info.st_mode)) return io_error("not a regular file: '" + path + "'");
  return static_cast<uint64_t>(info.st_size);
}

class PosixWritableFile final : public WritableFile {
 public:
  PosixWritableFile(Descriptor file, std::string path, uint64_t size)
      : file_(std::move(file)), path_(std::move(path)), size_(size) {}

  Status append(std::span<const Bytes> parts) override {
    std::array<struct iovec, kPartsMax> vectors;
    size_t next = 0;
    size_t skip = 0;  // bytes of parts[next] already written
    while (next < parts.size()) {
      size_t count = 0;
      for (size_t i = next; i < parts.size() && count < vectors.size(); ++i) {
        const Bytes part = parts[i].subspan(i == next ? skip : 0);
        if (part.empty()) continue;
        // writev does not write through this pointer; its type has no const.
        vectors[count++] = {const_cast<std::byte*>(part.data()), part.size()};
      }
      if (count == 0) break;
      const ssize_t written = retry_on_eintr([&] {
        return ::pwritev(file_.get(), vectors.data(), static_cast<int>(count),
                         static_cast<off_t>(size_));
      });
      if (written < 0) return error_of("write to", path_, errno);
      if (written == 0) return io_error("cannot write to '" + path_ + "': nothing was written");
      size_ += static_cast<uint64_t>(written);
      skip += static_cast<size_t>(written);
      while (next < parts.size() && skip >= parts[next].size()) skip -= parts[next++].size();
    }
    return Status();
  }

  Status sync() override {
    // EINTR is an error like any other here: a sync is never repeated.
    if (::fdatasync(file_.get()) != 0) return error_of("sync", path_, errno);
    return Status();
  }

  Status truncate(uint64_t size) override {
    if (retry_on_eintr([&] { return ::ftruncate(file_.get(), static_cast<off_t>(size)); }) != 0) {
      return error_of("truncate", path_, errno);
    }
    size_ = size;
    return Status();
  }

  Status allocate(uint64_t bytes) override {
    if (bytes <= size_) return Status();
    // Not posix_fallocate: where the file system cannot, that one writes zeros on its own account.
    const int done = retry_on_eintr([&] {
      return ::fallocate(file_.get(), FALLOC_FL_KEEP_SIZE, static_cast<off_t>(size_),
                         static_cast<off_t>(bytes - size_));
    });
    if (done == 0) return Status();
    const int error = errno;
    // What was allocated before the space ran out goes back at once: others need it.
    const int given_back = ::ftruncate(file_.get(), static_cast<off_t>(size_));
    static_cast<void>(given_back);  // the file's owner truncates it next, or removes it
    const Status status = error_of("allocate space for", path_, error);
    const bool cannot = error == EOPNOTSUPP || error == ENOSYS;
    return cannot ? failed_precondition(status.message()) : status;
  }

  uint64_t size() const override { return size_; }

 private:
  const Descriptor file_;
  const std::string path_;
  uint64_t size_;
};

/// Unmaps at its end. Thread safety: single owner.
struct Mapping {
  Mapping() = default;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (size != 0) ::munmap(address, size);
  }
  void* address = nullptr;
  size_t size = 0;
};

/// The descriptor that read_at needs is opened at its first call: most stores never make one, and
/// they should not need a descriptor a file. Where the name is gone by then, or the process has too
/// many open files, the bytes are copied from where they are mapped.
class PosixMappedFile final : public MappedFile {
 public:
  PosixMappedFile(std::unique_ptr<Mapping> mapping, std::string path, dev_t device, ino_t inode)
      : mapping_(std::move(mapping)),
        address_(mapping_->address),
        size_(mapping_->size),
        range_(address_, size_),
        path_(std::move(path)),
        device_(device),
        inode_(inode) {}
  PosixMappedFile(const PosixMappedFile&) = delete;
  PosixMappedFile& operator=(const PosixMappedFile&) = delete;
  ~PosixMappedFile() override {
    if (const int fd = fd_.load(); fd >= 0) ::close(fd);
  }
  Bytes bytes() const override { return {static_cast<const std::byte*>(address_), size_}; }
  Status read_at(uint64_t offset, std::span<std::byte> out) const override {
    CHECK_TRUE(offset <= size_ && out.size() <= size_ - offset);
    int fd = fd_.load(std::memory_order_acquire);
    if (fd == kNotOpened) fd = open_again();
    if (fd < 0) return MappedFile::read_at(offset, out);
    while (!out.empty()) {
      const ssize_t got = retry_on_eintr([&] {
        return ::pread(fd, out.data(), std::min(out.size(), kReadBytesMax),
                       static_cast<off_t>(offset));
      });
      if (got <= 0) {
        const int error = errno;
        range_.mark_failed();
        if (got < 0) return error_of("read", path_, error);
        return io_error("file became shorter: '" + path_ + "'");
      }
      out = out.subspan(static_cast<size_t>(got));
      offset += static_cast<uint64_t>(got);
    }
    return Status();
  }
  bool failed() const override { return range_.failed(); }
  void forget_pages() const override {
    // Best effort; the map is read-only, so nothing can be lost.
    if (size_ != 0) (void)::madvise(address_, size_, MADV_DONTNEED);
  }

 private:
  static constexpr int kNotOpened = -1;
  static constexpr int kCannotOpen = -2;

  /// The descriptor, or kCannotOpen.
  int open_again() const {
    int fd = retry_on_eintr(
        [&] { return ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK); });
    struct stat info {};
    const bool same =
        fd >= 0 && ::fstat(fd, &info) == 0 && info.st_dev == device_ && info.st_ino == inode_;
    if (!same) {
      if (fd >= 0) ::close(fd);
      fd = kCannotOpen;
    }
    int before = kNotOpened;
    if (fd_.compare_exchange_strong(before, fd, std::memory_order_acq_rel)) return fd;
    if (fd >= 0) ::close(fd);
    return before;
  }

  const std::unique_ptr<Mapping> mapping_;  // goes last
  void* const address_;
  const size_t size_;
  const MappedRange range_;
  const std::string path_;
  const dev_t device_;
  const ino_t inode_;
  mutable std::atomic<int> fd_{kNotOpened};
};

Result<Descriptor> open_directory(const std::string& dir) {
  const int fd =
      retry_on_eintr([&] { return ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (fd < 0) return error_of("open directory", dir, errno);
  return Descriptor(fd);
}

Status sync_directory(const std::string& dir) {
  ASSIGN_OR_RETURN(const Descriptor file, open_directory(dir));
  if (::fsync(file.get()) != 0) return error_of("sync directory", dir, errno);
  return Status();
}

/// Descriptors of the directories somebody has locked. A store that cannot sync its directory
/// cannot go on, so it must not need a free descriptor for that. Thread safety: safe.
class LockedDirs {
 public:
  void add(const std::string& dir, Descriptor file) {
    MutexLock lock(mutex_);
    dirs_.insert_or_assign(dir, std::make_shared<const Descriptor>(std::move(file)));
  }
  void remove(const std::string& dir) {
    MutexLock lock(mutex_);
    dirs_.erase(dir);
  }
  std::shared_ptr<const Descriptor> find(const std::string& dir) {
    MutexLock lock(mutex_);
    const auto found = dirs_.find(dir);
    return found == dirs_.end() ? nullptr : found->second;
  }

 private:
  Mutex mutex_;
  std::map<std::string, std::shared_ptr<const Descriptor>> dirs_ GUARDED_BY(mutex_);
};

class PosixFileLock final : public FileLock {
 public:
  PosixFileLock(Descriptor file, LockedDirs& dirs, std::string dir)
      : file_(std::move(file)), dirs_(dirs), dir_(std::move(dir)) {}
  PosixFileLock(const PosixFileLock&) = delete;
  PosixFileLock& operator=(const PosixFileLock&) = delete;
  ~PosixFileLock() override { dirs_.remove(dir_); }

 private:
  const Descriptor file_;
  LockedDirs& dirs_;
  const std::string dir_;
};

/// Reads [offset, offset + size) or up to the end.
Result<std::string> read_range(const Descriptor& file, const std::string& path, uint64_t offset,
                               uint64_t size) {
  std::string out(size, '\0');
  uint64_t done = 0;
  while (done < size) {
    const size_t want = std::min<uint64_t>(size - done, kReadBytesMax);
    const ssize_t got = retry_on_eintr([&] {
      return ::pread(file.get(), out.data() + done, want, static_cast<off_t>(offset + done));
    });
    if (got < 0) return error_of("read", path, errno);
    if (got == 0) break;
    done += static_cast<uint64_t>(got);
  }
  out.resize(done);
  return out;
}

class PosixFileSystem final : public FileSystem {
 public:
  Status make_dirs(const std::string& path) override {
    for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
      const std::string prefix = path.substr(0, end);
      if (!prefix.empty() && prefix.back() != '/') {
        if (::mkdir(prefix.c_str(), kDirMode) == 0) {
          RETURN_IF_ERROR(sync_directory(parent_of(prefix)));
        } else if (errno != EEXIST) {
          return error_of("make directory", prefix, errno);
        }
      }
      if (end == std::string::npos) break;
    }
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) return error_of("make directory", path, errno);
    if (!S_ISDIR(info.st_mode)) return error_of("make directory", path, EEXIST);
    return Status();
  }

  Result<std::vector<std::string>> list(const std::string& dir) override {
    const std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(dir.c_str()), ::closedir);
    if (stream == nullptr) return error_of("list directory", dir, errno);
    std::vector<std::string> names;  // without memory for them the stream is closed, too
    int error = 0;
    while (true) {
      errno = 0;
      const struct dirent* entry = ::readdir(stream.get());
      if (entry == nullptr) {
        error = errno;
        break;
      }
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
    }
    if (error != 0) return error_of("list directory", dir, error);
    std::sort(names.begin(), names.end());
    return names;
  }

  Status sync_dir(const std::string& dir) override {
    const std::shared_ptr<const Descriptor> held = locked_dirs_.find(dir);
    if (held == nullptr) return sync_directory(dir);
    if (::fsync(held->get()) != 0) return error_of("sync directory", dir, errno);
    return Status();
  }

  Result<std::unique_ptr<WritableFile>> create(const std::string& path) override {
    ASSIGN_OR_RETURN(Descriptor file, open_file(path, O_WRONLY | O_CREAT | O_TRUNC, "create"));
    RETURN_IF_ERROR(size_of(file, path).status());
    return std::unique_ptr<WritableFile>(
        std::make_unique<PosixWritableFile>(std::move(file), path, 0));
  }

  Result<std::unique_ptr<WritableFile>> open_for_append(const std::string& path) override {
    ASSIGN_OR_RETURN(Descriptor file, open_file(path, O_WRONLY, "open"));
    ASSIGN_OR_RETURN(const uint64_t size, size_of(file, path));
    return std::unique_ptr<WritableFile>(
        std::make_unique<PosixWritableFile>(std::move(file), path, size));
  }

  Result<std::string> read(const std::string& path, uint64_t size_max) override {
    ASSIGN_OR_RETURN(const Descriptor file, open_file(path, O_RDONLY | O_NONBLOCK, "open"));
    ASSIGN_OR_RETURN(const uint64_t size, size_of(file, path));
    if (size > size_max) {
      return resource_exhausted("file is too long: '" + path + "' has " + std::to_string(size) +
                                " bytes, limit is " + std::to_string(size_max));
    }
    // The kernel's own files (/proc) have content and state no size.
    return read_range(file, path, 0, size == 0 ? std::min(size_max, kSizelessBytesMax) : size);
  }

  Result<std::string> read_at(const std::string& path, uint64_t offset, uint64_t size) override {
    ASSIGN_OR_RETURN(const Descriptor file, open_file(path, O_RDONLY | O_NONBLOCK, "open"));
    ASSIGN_OR_RETURN(const uint64_t file_bytes, size_of(file, path));
    if (offset >= file_bytes) return std::string();
    return read_range(file, path, offset, std::min(size, file_bytes - offset));
  }

  Result<std::unique_ptr<MappedFile>> map(const std::string& path) override {
    ASSIGN_OR_RETURN(const Descriptor file, open_file(path, O_RDONLY | O_NONBLOCK, "open"));
    ASSIGN_OR_RETURN(const uint64_t size, size_of(file, path));
    struct stat info {};
    if (::fstat(file.get(), &info) != 0) return error_of("stat", path, errno);
    auto mapping = std::make_unique<Mapping>();
    if (size != 0) {  // mmap refuses an empty range
      void* const address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
      if (address == MAP_FAILED) return error_of("map", path, errno);
      mapping->address = address;
      mapping->size = size;
    }
    return std::unique_ptr<MappedFile>(
        std::make_unique<PosixMappedFile>(std::move(mapping), path, info.st_dev, info.st_ino));
  }

  uint64_t map_failures() const override { return mapped_faults_count(); }

  Result<uint64_t> file_size(const std::string& path) override {
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0) return error_of("stat", path, errno);
    if (!S_ISREG(info.st_mode)) return io_error("not a regular file: '" + path + "'");
    return static_cast<uint64_t>(info.st_size);
  }

  Result<uint64_t> free_bytes(const std::string& dir) override {
    struct statvfs info {};
    if (retry_on_eintr([&] { return ::statvfs(dir.c_str(), &info); }) != 0) {
      return error_of("look at the free space of", dir, errno);
    }
    // Network file systems that do not know say that they have no blocks at all.
    uint64_t bytes = 0;
    if (info.f_blocks == 0 || __builtin_mul_overflow(info.f_bavail, info.f_frsize, &bytes)) {
      return UINT64_MAX;
    }
    return bytes;
  }

  Status rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) return error_of("rename", from, errno);
    return Status();
  }

  Status exchange(const std::string& a, const std::string& b) override {
    const int done = ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE);
    const int error = errno;
    if (done == 0) return Status();
    const Status status = error_of("exchange", a, error);
    const bool cannot = error == EINVAL || error == ENOSYS || error == EXDEV || error == EBUSY;
    return cannot ? failed_precondition(status.message()) : status;
  }

  Status remove(const std::string& path) override {
    if (::unlink(path.c_str()) != 0) return error_of("remove", path, errno);
    return Status();
  }

  Result<std::unique_ptr<FileLock>> lock(const std::string& path) override {
    ASSIGN_OR_RETURN(Descriptor file, open_file(path, O_RDWR | O_CREAT, "open lock file"));
    if (retry_on_eintr([&] { return ::flock(file.get(), LOCK_EX | LOCK_NB); }) != 0) {
      if (errno == EWOULDBLOCK) {
        return Status(Code::kInUse,
                      "another process has the data directory open: '" + path + "' is locked");
      }
      return error_of("lock", path, errno);
    }
    std::string dir = parent_of(path);
    ASSIGN_OR_RETURN(Descriptor directory, open_directory(dir));
    locked_dirs_.add(dir, std::move(directory));
    return std::unique_ptr<FileLock>(
        std::make_unique<PosixFileLock>(std::move(file), locked_dirs_, std::move(dir)));
  }

  Result<bool> is_locked(const std::string& path) override {
    // A shared lock is enough to meet an exclusive one, and two who ask do not meet each other.
    const auto file = open_file(path, O_RDONLY | O_NONBLOCK, "open lock file");
    if (!file.has_value()) {
      if (file.error().code() == Code::kNotFound) return false;
      return file.error();
    }
    if (retry_on_eintr([&] { return ::flock(file->get(), LOCK_SH | LOCK_NB); }) == 0) return false;
    if (errno == EWOULDBLOCK) return true;
    return error_of("look at the lock of", path, errno);
  }

 private:
  LockedDirs locked_dirs_;
};

}  // namespace

std::string parent_of(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return "/";
  const size_t slash = path.rfind('/', end);
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

FileSystem& posix_file_system() {
  static PosixFileSystem file_system;
  return file_system;
}

}  // namespace aionbd
