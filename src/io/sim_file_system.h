// A file system in memory that knows what a power cut could leave of it. For tests only.
//
// The crash model (docs/format.md, media assumptions): per file a durable image and the ordered
// unsynced writes and truncations; per directory the durable entries and the ordered unsynced
// creations, renames and removals; directories are durable when made, their renames and exchanges
// not before a sync_dir of the parent. `sync` settles one file, `sync_dir` one directory. A crash
// image keeps or loses every unsynced item on its own: writes in sectors of 512 bytes; a file may
// have grown without its data, then it holds zeros, noise, what was cut off there before, or what a
// file that was removed had there; a rename may be there without the content of the file; a removal
// may be undone.
//
// Contents are shared blocks, copied when written, so an image costs the blocks that differ.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "base/rng.h"
#include "io/file_system.h"

namespace aionbd {

/// Every call of the interface, as the hook and the trace see it.
enum class FileOp : uint8_t {
  kMakeDirs,
  kList,
  kSyncDir,
  kCreate,
  kOpenForAppend,
  kRead,
  kMap,
  kFileSize,
  kFreeBytes,
  kRename,
  kRemove,
  kLock,
  kAppend,
  kSync,
  kTruncate,
  kExchange,
  kAllocate,
};

/// Lower-case name, e.g. "sync_dir".
std::string_view file_op_name(FileOp op);
/// Whether the call can change what is on the disk.
bool is_mutation(FileOp op);

/// One call about to happen.
struct FileCall {
  FileOp op = FileOp::kList;
  std::string path;
  std::string to;         // of a rename or an exchange
  uint64_t bytes = 0;     // appended, or the new size
  uint64_t mutation = 0;  // number of this mutation, from 1; that of the last one for other calls
};

/// How a call fails.
struct FileFault {
  Status error;
  /// append: so many bytes get in first.
  uint64_t bytes_written = 0;
  /// sync: what was unsynced is lost and will never be synced; true: reads still show it until the
  /// crash (ext4), false: reads show the old content (XFS, Btrfs). Source: Rebello et al., ATC
  /// 2020.
  bool reads_show_lost = true;
};

/// The shapes of images a power cut leaves.
enum class CrashKind : uint8_t {
  kDropAll,         // nothing unsynced survives
  kKeepAll,         // everything does
  kPrefix,          // the first n unsynced items, in the order of the calls
  kRandom,          // each item on its own, half of them
  kZeroExtension,   // names and lengths survive, data does not: zeros
  kNoiseExtension,  // the same, with old bytes or noise
  kNamesFirst,      // names survive, contents do not
  kContentsFirst,   // contents survive, names do not
  kStaleExtension,  // as kZeroExtension, but the blocks show what a removed file held there
};
inline constexpr size_t kCrashKindsCount = 9;

/// A file's bytes as shared blocks. Thread safety: compatible.
class SimContent {
 public:
  static constexpr uint64_t kBlockBytes = 4096;

  uint64_t size() const { return size_; }
  void write(uint64_t offset, Bytes bytes);  // a gap before `offset` becomes zeros
  void resize(uint64_t size);                // growth is zeros
  /// REQUIRES: offset + out.size() <= size().
  void read(uint64_t offset, std::span<std::byte> out) const;
  std::string read(uint64_t offset, uint64_t size) const;

 private:
  using Block = std::array<std::byte, kBlockBytes>;
  Block& writable(uint64_t index);

  std::vector<std::shared_ptr<Block>> blocks_;
  uint64_t size_ = 0;
};

/// Thread safety: safe. Must outlive its files.
class SimFileSystem final : public FileSystem {
 public:
  SimFileSystem();
  ~SimFileSystem() override;

  // ---- Crashes ----

  /// What a power cut now could leave: every unsynced item survives with that probability.
  std::unique_ptr<SimFileSystem> crash_clone(uint64_t seed, uint32_t survive_percent) const;
  /// An image of the given shape.
  std::unique_ptr<SimFileSystem> crash_image(CrashKind kind, uint64_t seed) const;
  /// From the n-th mutation from now on (1: the next one), nothing has an effect and every call
  /// fails. 0: never.
  void crash_at_mutation(uint64_t n);
  bool crashed() const;
  /// After `crash_at_mutation`: only the process died. Calls work again, nothing unsynced is lost.
  /// REQUIRES: nothing of the dead process is used any more.
  void revive();

  // ---- Faults and observation ----

  /// Called before every call, without any lock; may make images. What it returns, if anything, is
  /// how the call fails.
  using Hook = std::function<std::optional<FileFault>(const FileCall&)>;
  void set_hook(Hook hook);
  /// Fails the nth (from 1) call of this kind whose path contains `path_part`, once or from then
  /// on. Replaces the hook.
  void fail(FileOp op, std::string path_part, uint64_t nth, FileFault fault, bool sticky);
  /// Total bytes of all files, with what is allocated for them; an append beyond it writes what
  /// fits and fails with storage_full, an allocation beyond it keeps nothing.
  void set_capacity(uint64_t bytes);
  /// What of the capacity is taken now.
  uint64_t used_bytes() const;

  uint64_t mutations_count() const;
  /// One line per mutation: "append store/wal 112". Kept only after this call.
  void start_trace();
  std::vector<std::string> take_trace();

  /// Replaces a file's content, durably: for damaging it.
  void overwrite(const std::string& path, std::string_view content);

  // ---- FileSystem ----

  Status make_dirs(const std::string& path) override;
  Result<std::vector<std::string>> list(const std::string& dir) override;
  Status sync_dir(const std::string& dir) override;
  Result<std::unique_ptr<WritableFile>> create(const std::string& path) override;
  Result<std::unique_ptr<WritableFile>> open_for_append(const std::string& path) override;
  Result<std::string> read(const std::string& path, uint64_t size_max) override;
  Result<std::string> read_at(const std::string& path, uint64_t offset, uint64_t size) override;
  Result<std::unique_ptr<MappedFile>> map(const std::string& path) override;
  Result<uint64_t> file_size(const std::string& path) override;
  Result<uint64_t> free_bytes(const std::string& dir) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status exchange(const std::string& a, const std::string& b) override;
  Status remove(const std::string& path) override;
  Result<std::unique_ptr<FileLock>> lock(const std::string& path) override;
  Result<bool> is_locked(const std::string& path) override;

 private:
  friend class SimWritableFile;
  friend class SimFileLock;

  /// An unsynced change of a file's content.
  struct ContentOp {
    uint64_t order = 0;  // among all unsynced items of the file system
    bool is_truncate = false;
    bool lost = false;    // a failed sync dropped it: no later sync will make it durable
    uint64_t offset = 0;  // of a write; the new size of a truncation
    std::shared_ptr<const std::string> data;
  };
  struct Node {
    SimContent current;                      // what reads see
    std::optional<SimContent> to_be_synced;  // when a failed sync made it differ from `current`
    SimContent durable;
    std::vector<ContentOp> unsynced;
    SimContent cut_off;  // longest content that was cut off or lost: what old blocks may show again
    uint64_t allocated = 0;  // space is taken up to here, if that is beyond the content
  };
  using NodePtr = std::shared_ptr<Node>;
  /// An unsynced change of a directory: `to` now is `node` (unless null), `from` is gone.
  struct EntryOp {
    uint64_t order = 0;
    std::string from;
    std::string to;
    NodePtr node;
  };
  struct Dir {
    std::map<std::string, NodePtr> entries;
    std::map<std::string, NodePtr> durable;
    std::vector<EntryOp> unsynced;
  };
  using Dirs = std::map<std::string, std::shared_ptr<Dir>>;  // by path
  /// An unsynced rename or exchange of directories: one step, so it survives whole or not at all.
  struct DirsOp {
    uint64_t order = 0;
    std::string parent;
    Dirs now;  // what these paths are; null: nothing
  };
  struct Survival;

  static void apply(const DirsOp& op, Dirs& dirs);
  Dirs surviving_dirs(Survival& survival) const REQUIRES(mutex_);
  Status move_dir(const std::string& from, const std::string& to) REQUIRES(mutex_);
  /// Runs the hook and the crash clock. Nothing: go on.
  std::optional<FileFault> before(FileOp op, const std::string& path, const std::string& to = "",
                                  uint64_t bytes = 0) EXCLUDES(mutex_);
  NodePtr find(const std::string& path) const REQUIRES(mutex_);
  Dir* dir_of(const std::string& path) REQUIRES(mutex_);
  void write_to(Node& node, Bytes bytes) REQUIRES(mutex_);
  void truncate_to(Node& node, uint64_t size) REQUIRES(mutex_);
  uint64_t used() const REQUIRES(mutex_);
  uint64_t room() const REQUIRES(mutex_);
  void note_freed(const Node& node) REQUIRES(mutex_);

  Status append_to(const NodePtr& node, const std::string& path, std::span<const Bytes> parts);
  Status sync_node(const NodePtr& node, const std::string& path);
  Status truncate_node(const NodePtr& node, const std::string& path, uint64_t size);
  Status allocate_node(const NodePtr& node, const std::string& path, uint64_t bytes);
  void unlock(const std::string& path);

  std::unique_ptr<SimFileSystem> image(Survival survival) const;
  static SimContent surviving_content(const Node& node, Survival& survival);
  static void survive_write(SimContent& content, const Node& node, const ContentOp& op,
                            Survival& survival);

  mutable Mutex mutex_;
  Dirs dirs_ GUARDED_BY(mutex_);
  Dirs durable_dirs_ GUARDED_BY(mutex_);
  std::vector<DirsOp> unsynced_dirs_ GUARDED_BY(mutex_);
  std::map<std::string, bool> locked_ GUARDED_BY(mutex_);
  std::vector<SimContent> freed_ GUARDED_BY(mutex_);  // what the last files removed held
  uint64_t order_ GUARDED_BY(mutex_) = 0;
  uint64_t mutations_ GUARDED_BY(mutex_) = 0;
  uint64_t crash_at_ GUARDED_BY(mutex_) = 0;
  bool crashed_ GUARDED_BY(mutex_) = false;
  uint64_t capacity_ GUARDED_BY(mutex_) = UINT64_MAX;
  bool tracing_ GUARDED_BY(mutex_) = false;
  std::vector<std::string> trace_ GUARDED_BY(mutex_);
  std::shared_ptr<const Hook> hook_ GUARDED_BY(mutex_);
};

}  // namespace aionbd
