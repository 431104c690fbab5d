// See sim_file_system.h.
#include "io/sim_file_system.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace aionbd {
namespace {

constexpr uint64_t kSectorBytes = 512;

/// "a" and "b" of "a/b"; "." and "b" of "b".
std::pair<std::string, std::string> split(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {".", path};
  return {path.substr(0, slash), path.substr(slash + 1)};
}

Status missing(const std::string& path) {
  return not_found("no such file: '" + path + "'");
}

/// Aligned as a mapping is.
struct alignas(64) Line {
  std::array<std::byte, 64> bytes;
};

class SimMappedFile final : public MappedFile {
 public:
  explicit SimMappedFile(const SimContent& content)
      : lines_((content.size() + sizeof(Line) - 1) / sizeof(Line)), size_(content.size()) {
    content.read(0, {reinterpret_cast<std::byte*>(lines_.data()), size_});
  }
  Bytes bytes() const override {
    return {reinterpret_cast<const std::byte*>(lines_.data()), size_};
  }

 private:
  std::vector<Line> lines_;
  uint64_t size_;
};

}  // namespace

std::string_view file_op_name(FileOp op) {
  switch (op) {
    case FileOp::kMakeDirs: return "make_dirs";
    case FileOp::kList: return "list";
    case FileOp::kSyncDir: return "sync_dir";
    case FileOp::kCreate: return "create";
    case FileOp::kOpenForAppend: return "open_for_append";
    case FileOp::kRead: return "read";
    case FileOp::kMap: return "map";
    case FileOp::kFileSize: return "file_size";
    case FileOp::kFreeBytes: return "free_bytes";
    case FileOp::kRename: return "rename";
    case FileOp::kRemove: return "remove";
    case FileOp::kLock: return "lock";
    case FileOp::kAppend: return "append";
    case FileOp::kSync: return "sync";
    case FileOp::kTruncate: return "truncate";
    case FileOp::kExchange: return "exchange";
    case FileOp::kAllocate: return "allocate";
  }
  return "";
}

bool is_mutation(FileOp op) {
  switch (op) {
    case FileOp::kList:
    case FileOp::kOpenForAppend:
    case FileOp::kRead:
    case FileOp::kMap:
    case FileOp::kFileSize:
    case FileOp::kFreeBytes: return false;
    default: return true;
  }
}

// ---- Content -----------------------------------------------------------------------------------

SimContent::Block& SimContent::writable(uint64_t index) {
  std::shared_ptr<Block>& block = blocks_[index];
  if (block == nullptr) {
    block = std::make_shared<Block>();
  } else if (block.use_count() != 1) {
    block = std::make_shared<Block>(*block);
  }
  return *block;
}

void SimContent::write(uint64_t offset, Bytes bytes) {
  if (bytes.empty()) return;
  if (offset + bytes.size() > size_) resize(offset + bytes.size());
  while (!bytes.empty()) {
    const uint64_t in_block = offset % kBlockBytes;
    const size_t count = std::min<size_t>(bytes.size(), kBlockBytes - in_block);
    std::memcpy(writable(offset / kBlockBytes).data() + in_block, bytes.data(), count);
    bytes = bytes.subspan(count);
    offset += count;
  }
}

void SimContent::resize(uint64_t size) {
  if (size < size_ && size % kBlockBytes != 0) {
    // What lies behind the end must be zeros should the file grow again.
    Block& last = writable(size / kBlockBytes);
    std::fill(last.begin() + static_cast<ptrdiff_t>(size % kBlockBytes), last.end(), std::byte{0});
  }
  blocks_.resize((size + kBlockBytes - 1) / kBlockBytes);  // a null block is zeros
  size_ = size;
}

void SimContent::read(uint64_t offset, std::span<std::byte> out) const {
  CHECK_LE(offset + out.size(), size_);
  while (!out.empty()) {
    const uint64_t in_block = offset % kBlockBytes;
    const size_t count = std::min<size_t>(out.size(), kBlockBytes - in_block);
    const auto& block = blocks_[offset / kBlockBytes];
    if (block == nullptr) {
      std::memset(out.data(), 0, count);
    } else {
      std::memcpy(out.data(), block->data() + in_block, count);
    }
    out = out.subspan(count);
    offset += count;
  }
}

std::string SimContent::read(uint64_t offset, uint64_t size) const {
  if (offset >= size_) return {};
  std::string out(std::min(size, size_ - offset), '\0');
  read(offset, {reinterpret_cast<std::byte*>(out.data()), out.size()});
  return out;
}

// ---- Handles -----------------------------------------------------------------------------------

class SimWritableFile final : public WritableFile {
 public:
  SimWritableFile(SimFileSystem* files, SimFileSystem::NodePtr node, std::string path)
      : files_(files), node_(std::move(node)), path_(std::move(path)) {}

  Status append(std::span<const Bytes> parts) override {
    return files_->append_to(node_, path_, parts);
  }
  Status sync() override { return files_->sync_node(node_, path_); }
  Status truncate(uint64_t size) override { return files_->truncate_node(node_, path_, size); }
  Status allocate(uint64_t bytes) override { return files_->allocate_node(node_, path_, bytes); }
  uint64_t size() const override {
    MutexLock lock(files_->mutex_);
    return node_->current.size();
  }

 private:
  SimFileSystem* const files_;
  const SimFileSystem::NodePtr node_;
  const std::string path_;
};

class SimFileLock final : public FileLock {
 public:
  SimFileLock(SimFileSystem* files, std::string path) : files_(files), path_(std::move(path)) {}
  ~SimFileLock() override { files_->unlock(path_); }

 private:
  SimFileSystem* const files_;
  const std::string path_;
};

// ---- Calls -------------------------------------------------------------------------------------

SimFileSystem::SimFileSystem() {
  dirs_["."] = durable_dirs_["."] = std::make_shared<Dir>();
}
SimFileSystem::~SimFileSystem() = default;

std::optional<FileFault> SimFileSystem::before(FileOp op, const std::string& path,
                                               const std::string& to, uint64_t bytes) {
  std::shared_ptr<const Hook> hook;
  FileCall call{op, path, to, bytes, 0};
  {
    MutexLock lock(mutex_);
    if (is_mutation(op) && !crashed_) {
      ++mutations_;
      if (crash_at_ != 0 && mutations_ >= crash_at_) crashed_ = true;
      if (tracing_ && !crashed_) {
        std::string line(file_op_name(op));
        line.append(" ").append(path);
        if (!to.empty()) line.append(" ").append(to);
        if (op == FileOp::kAppend || op == FileOp::kTruncate || op == FileOp::kAllocate) {
          line.append(" ").append(std::to_string(bytes));
        }
        trace_.push_back(std::move(line));
      }
    }
    if (crashed_) return FileFault{io_error("simulated crash: '" + path + "'")};
    call.mutation = mutations_;
    hook = hook_;
  }
  if (hook != nullptr) return (*hook)(call);
  return std::nullopt;
}

SimFileSystem::NodePtr SimFileSystem::find(const std::string& path) const {
  const auto [dir, name] = split(path);
  const auto found = dirs_.find(dir);
  if (found == dirs_.end()) return nullptr;
  const auto entry = found->second->entries.find(name);
  return entry == found->second->entries.end() ? nullptr : entry->second;
}

SimFileSystem::Dir* SimFileSystem::dir_of(const std::string& path) {
  const auto found = dirs_.find(split(path).first);
  return found == dirs_.end() ? nullptr : found->second.get();
}

Status SimFileSystem::make_dirs(const std::string& path) {
  if (auto fault = before(FileOp::kMakeDirs, path)) return fault->error;
  MutexLock lock(mutex_);
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    std::shared_ptr<Dir>& dir = dirs_[path.substr(0, end)];
    if (dir == nullptr) {
      dir = std::make_shared<Dir>();
      durable_dirs_[path.substr(0, end)] = dir;  // at once, as the interface promises
    }
    if (end == std::string::npos) return Status();
  }
}

Result<std::vector<std::string>> SimFileSystem::list(const std::string& dir) {
  if (auto fault = before(FileOp::kList, dir)) return fault->error;
  MutexLock lock(mutex_);
  const auto found = dirs_.find(dir);
  if (found == dirs_.end()) return missing(dir);
  std::vector<std::string> names;
  for (const auto& entry : found->second->entries) names.push_back(entry.first);
  for (const auto& other : dirs_) {
    const auto [parent, name] = split(other.first);
    if (parent == dir && name != ".") names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

Status SimFileSystem::sync_dir(const std::string& dir) {
  if (auto fault = before(FileOp::kSyncDir, dir)) return fault->error;
  MutexLock lock(mutex_);
  const auto found = dirs_.find(dir);
  if (found == dirs_.end()) return missing(dir);
  found->second->durable = found->second->entries;
  found->second->unsynced.clear();
  std::erase_if(unsynced_dirs_, [&](const DirsOp& op) REQUIRES(mutex_) {
    if (op.parent != dir) return false;
    apply(op, durable_dirs_);
    return true;
  });
  return Status();
}

void SimFileSystem::apply(const DirsOp& op, Dirs& dirs) {
  for (const auto& [path, dir] : op.now) {
    if (dir == nullptr) {
      dirs.erase(path);
    } else {
      dirs[path] = dir;
    }
  }
}

/// As rename(2): onto nothing, or onto an empty directory.
Status SimFileSystem::move_dir(const std::string& from, const std::string& to) {
  const auto target = dirs_.find(to);
  if (target != dirs_.end() && !target->second->entries.empty()) {
    return io_error("directory is not empty: '" + to + "'");
  }
  DirsOp op{++order_, split(from).first, {{from, nullptr}, {to, dirs_[from]}}};
  apply(op, dirs_);
  unsynced_dirs_.push_back(std::move(op));
  return Status();
}

Result<std::unique_ptr<WritableFile>> SimFileSystem::create(const std::string& path) {
  if (auto fault = before(FileOp::kCreate, path)) return fault->error;
  MutexLock lock(mutex_);
  Dir* dir = dir_of(path);
  if (dir == nullptr) return missing(path);
  const std::string name = split(path).second;
  NodePtr& node = dir->entries[name];
  if (node == nullptr) {
    node = std::make_shared<Node>();
    dir->unsynced.push_back({++order_, "", name, node});
  } else if (node->current.size() != 0) {
    truncate_to(*node, 0);
  }
  node->allocated = 0;
  return std::unique_ptr<WritableFile>(std::make_unique<SimWritableFile>(this, node, path));
}

Result<std::unique_ptr<WritableFile>> SimFileSystem::open_for_append(const std::string& path) {
  if (auto fault = before(FileOp::kOpenForAppend, path)) return fault->error;
  MutexLock lock(mutex_);
  NodePtr node = find(path);
  if (node == nullptr) return missing(path);
  return std::unique_ptr<WritableFile>(
      std::make_unique<SimWritableFile>(this, std::move(node), path));
}

Result<std::string> SimFileSystem::read(const std::string& path, uint64_t size_max) {
  if (auto fault = before(FileOp::kRead, path)) return fault->error;
  MutexLock lock(mutex_);
  const NodePtr node = find(path);
  if (node == nullptr) return missing(path);
  if (node->current.size() > size_max) {
    return resource_exhausted("file is too long: '" + path + "'");
  }
  return node->current.read(0, node->current.size());
}

Result<std::string> SimFileSystem::read_at(const std::string& path, uint64_t offset,
                                           uint64_t size) {
  if (auto fault = before(FileOp::kRead, path)) return fault->error;
  MutexLock lock(mutex_);
  const NodePtr node = find(path);
  if (node == nullptr) return missing(path);
  return node->current.read(offset, size);
}

Result<std::unique_ptr<MappedFile>> SimFileSystem::map(const std::string& path) {
  if (auto fault = before(FileOp::kMap, path)) return fault->error;
  MutexLock lock(mutex_);
  const NodePtr node = find(path);
  if (node == nullptr) return missing(path);
  return std::unique_ptr<MappedFile>(std::make_unique<SimMappedFile>(node->current));
}

Result<uint64_t> SimFileSystem::file_size(const std::string& path) {
  if (auto fault = before(FileOp::kFileSize, path)) return fault->error;
  MutexLock lock(mutex_);
  const NodePtr node = find(path);
  if (node == nullptr) return missing(path);
  return node->current.size();
}

Result<uint64_t> SimFileSystem::free_bytes(const std::string& dir) {
  if (auto fault = before(FileOp::kFreeBytes, dir)) return fault->error;
  MutexLock lock(mutex_);
  if (!dirs_.contains(dir)) return missing(dir);
  return room();
}

Status SimFileSystem::rename(const std::string& from, const std::string& to) {
  if (auto fault = before(FileOp::kRename, from, to)) return fault->error;
  MutexLock lock(mutex_);
  Dir* dir = dir_of(from);
  CHECK_TRUE(dir == dir_of(to));  // nobody here renames across directories
  if (dirs_.contains(from)) return move_dir(from, to);
  NodePtr node = find(from);
  if (node == nullptr) return missing(from);
  const std::string old_name = split(from).second;
  const std::string new_name = split(to).second;
  dir->entries.erase(old_name);
  dir->entries[new_name] = node;
  dir->unsynced.push_back({++order_, old_name, new_name, std::move(node)});
  return Status();
}

/// Of directories; nobody here exchanges files.
Status SimFileSystem::exchange(const std::string& a, const std::string& b) {
  if (auto fault = before(FileOp::kExchange, a, b)) return fault->error;
  MutexLock lock(mutex_);
  if (!dirs_.contains(a)) return missing(a);
  if (!dirs_.contains(b)) return missing(b);
  CHECK_TRUE(split(a).first == split(b).first);
  DirsOp op{++order_, split(a).first, {{a, dirs_[b]}, {b, dirs_[a]}}};
  apply(op, dirs_);
  unsynced_dirs_.push_back(std::move(op));
  return Status();
}

Status SimFileSystem::remove(const std::string& path) {
  if (auto fault = before(FileOp::kRemove, path)) return fault->error;
  MutexLock lock(mutex_);
  if (find(path) == nullptr) return missing(path);
  note_freed(*find(path));
  Dir* dir = dir_of(path);
  const std::string name = split(path).second;
  dir->entries.erase(name);
  dir->unsynced.push_back({++order_, name, "", nullptr});
  return Status();
}

Result<std::unique_ptr<FileLock>> SimFileSystem::lock(const std::string& path) {
  if (auto fault = before(FileOp::kLock, path)) return fault->error;
  MutexLock lock(mutex_);
  Dir* dir = dir_of(path);
  if (dir == nullptr) return missing(path);
  bool& locked = locked_[path];
  if (locked) return Status(Code::kInUse, "locked: '" + path + "'");
  locked = true;
  const std::string name = split(path).second;
  NodePtr& node = dir->entries[name];
  if (node == nullptr) {
    node = std::make_shared<Node>();
    dir->unsynced.push_back({++order_, "", name, node});
  }
  return std::unique_ptr<FileLock>(std::make_unique<SimFileLock>(this, path));
}

Result<bool> SimFileSystem::is_locked(const std::string& path) {
  if (auto fault = before(FileOp::kFileSize, path)) return fault->error;
  MutexLock lock(mutex_);
  return locked_.contains(path);
}

void SimFileSystem::unlock(const std::string& path) {
  MutexLock lock(mutex_);
  locked_.erase(path);
}

// ---- Open files --------------------------------------------------------------------------------

void SimFileSystem::write_to(Node& node, Bytes bytes) {
  if (bytes.empty()) return;
  const uint64_t offset = node.current.size();
  node.current.write(offset, bytes);
  if (node.to_be_synced.has_value()) node.to_be_synced->write(offset, bytes);
  node.unsynced.push_back(
      {++order_, false, false, offset, std::make_shared<const std::string>(as_text(bytes))});
}

void SimFileSystem::truncate_to(Node& node, uint64_t size) {
  if (node.current.size() > node.cut_off.size()) node.cut_off = node.current;
  node.current.resize(size);
  if (node.to_be_synced.has_value()) node.to_be_synced->resize(size);
  node.unsynced.push_back({++order_, true, false, size, nullptr});
}

void SimFileSystem::note_freed(const Node& node) {
  constexpr size_t kKept = 3;
  if (node.current.size() == 0) return;
  if (freed_.size() == kKept) freed_.erase(freed_.begin());
  freed_.push_back(node.current);
}

uint64_t SimFileSystem::used() const {
  uint64_t bytes = 0;
  for (const auto& dir : dirs_) {
    for (const auto& entry : dir.second->entries) {
      bytes += std::max(entry.second->current.size(), entry.second->allocated);
    }
  }
  return bytes;
}

uint64_t SimFileSystem::room() const {
  if (capacity_ == UINT64_MAX) return UINT64_MAX;
  const uint64_t taken = used();
  return capacity_ > taken ? capacity_ - taken : 0;
}

Status SimFileSystem::append_to(const NodePtr& node, const std::string& path,
                                std::span<const Bytes> parts) {
  uint64_t bytes = 0;
  for (const Bytes part : parts) bytes += part.size();
  auto fault = before(FileOp::kAppend, path, "", bytes);
  MutexLock lock(mutex_);
  uint64_t allowed = crashed_ ? 0 : room();
  if (node->allocated > node->current.size() && allowed < bytes) {
    allowed += node->allocated - node->current.size();
  }
  if (fault.has_value()) {
    allowed = crashed_ ? 0 : std::min(allowed, fault->bytes_written);
  } else if (allowed < bytes) {
    fault = FileFault{storage_full("cannot write to '" + path + "': simulated disk is full")};
  }
  // One gathered call is one unsynced write; its sectors still survive one by one.
  std::string gathered;
  for (const Bytes part : parts) {
    const size_t count = std::min<uint64_t>(part.size(), allowed - gathered.size());
    gathered.append(as_text(part.first(count)));
    if (count < part.size()) break;
  }
  write_to(*node, as_bytes_of(gathered));
  return fault.has_value() ? fault->error : Status();
}

Status SimFileSystem::sync_node(const NodePtr& node, const std::string& path) {
  const auto fault = before(FileOp::kSync, path);
  MutexLock lock(mutex_);
  if (!fault.has_value()) {
    // A later truncation or write may stand on a lost one, so the content is kept beside.
    node->durable = node->to_be_synced.has_value() ? *node->to_be_synced : node->current;
    node->unsynced.clear();
    return Status();
  }
  if (crashed_) return fault->error;
  for (ContentOp& op : node->unsynced) op.lost = true;
  node->to_be_synced = node->durable;
  if (!fault->reads_show_lost) node->current = node->durable;
  return fault->error;
}

Status SimFileSystem::truncate_node(const NodePtr& node, const std::string& path, uint64_t size) {
  if (auto fault = before(FileOp::kTruncate, path, "", size)) return fault->error;
  MutexLock lock(mutex_);
  truncate_to(*node, size);
  node->allocated = 0;
  return Status();
}

Status SimFileSystem::allocate_node(const NodePtr& node, const std::string& path, uint64_t bytes) {
  if (auto fault = before(FileOp::kAllocate, path, "", bytes)) return fault->error;
  MutexLock lock(mutex_);
  const uint64_t has = std::max(node->current.size(), node->allocated);
  if (bytes <= has) return Status();
  if (bytes - has > room()) {
    node->allocated = 0;
    return storage_full("cannot allocate space for '" + path + "': simulated disk is full");
  }
  node->allocated = bytes;
  return Status();
}

void SimFileSystem::overwrite(const std::string& path, std::string_view content) {
  MutexLock lock(mutex_);
  const NodePtr node = find(path);
  CHECK_TRUE(node != nullptr);
  node->current = SimContent();
  node->current.write(0, as_bytes_of(content));
  node->durable = node->current;
  node->to_be_synced.reset();
  node->unsynced.clear();
}

// ---- Faults and observation --------------------------------------------------------------------

void SimFileSystem::crash_at_mutation(uint64_t n) {
  MutexLock lock(mutex_);
  crash_at_ = n == 0 ? 0 : mutations_ + n;
}
bool SimFileSystem::crashed() const {
  MutexLock lock(mutex_);
  return crashed_;
}
void SimFileSystem::revive() {
  MutexLock lock(mutex_);
  crashed_ = false;
  crash_at_ = 0;
  locked_.clear();
}
void SimFileSystem::set_hook(Hook hook) {
  auto shared = hook ? std::make_shared<const Hook>(std::move(hook)) : nullptr;
  MutexLock lock(mutex_);
  hook_ = std::move(shared);
}
void SimFileSystem::fail(FileOp op, std::string path_part, uint64_t nth, FileFault fault,
                         bool sticky) {
  struct Counting {
    Mutex mutex;
    uint64_t seen GUARDED_BY(mutex) = 0;
  };
  auto counting = std::make_shared<Counting>();
  set_hook([op, path_part = std::move(path_part), nth, fault = std::move(fault), sticky,
            counting](const FileCall& call) -> std::optional<FileFault> {
    if (call.op != op || call.path.find(path_part) == std::string::npos) return std::nullopt;
    MutexLock lock(counting->mutex);
    const uint64_t seen = ++counting->seen;
    if (seen == nth || (sticky && seen > nth)) return fault;
    return std::nullopt;
  });
}
void SimFileSystem::set_capacity(uint64_t bytes) {
  MutexLock lock(mutex_);
  capacity_ = bytes;
}
uint64_t SimFileSystem::used_bytes() const {
  MutexLock lock(mutex_);
  return used();
}
uint64_t SimFileSystem::mutations_count() const {
  MutexLock lock(mutex_);
  return mutations_;
}
void SimFileSystem::start_trace() {
  MutexLock lock(mutex_);
  tracing_ = true;
  trace_.clear();
}
std::vector<std::string> SimFileSystem::take_trace() {
  MutexLock lock(mutex_);
  return std::exchange(trace_, {});
}

// ---- Crash images ------------------------------------------------------------------------------

/// Decides, item by item, what survives.
struct SimFileSystem::Survival {
  enum class Filler { kZeros, kNoise, kMixed, kFreed };

  Rng rng;
  double names = 0;     // probability that a directory change survives
  double contents = 0;  // that a sector, or a truncation, does
  double lengths = 0;   // that a file has grown whatever became of the data
  Filler filler = Filler::kZeros;
  uint64_t order_end = UINT64_MAX;  // items from this one on are lost
  std::vector<SimContent> freed{};  // for kFreed

  bool name(uint64_t order) { return order < order_end && rng.chance(names); }
  bool content(uint64_t order) { return order < order_end && rng.chance(contents); }
  bool length(uint64_t order) { return order < order_end && rng.chance(lengths); }
};

std::unique_ptr<SimFileSystem> SimFileSystem::crash_clone(uint64_t seed,
                                                          uint32_t survive_percent) const {
  Survival survival{Rng(seed)};
  const double probability = static_cast<double>(survive_percent) / 100;
  survival.names = survival.contents = survival.lengths = probability;
  survival.filler = Survival::Filler::kMixed;
  return image(std::move(survival));
}

std::unique_ptr<SimFileSystem> SimFileSystem::crash_image(CrashKind kind, uint64_t seed) const {
  Survival survival{Rng(seed)};
  switch (kind) {
    case CrashKind::kDropAll: break;
    case CrashKind::kKeepAll: survival.names = survival.contents = survival.lengths = 1; break;
    case CrashKind::kPrefix: {
      survival.names = survival.contents = survival.lengths = 1;
      MutexLock lock(mutex_);
      // Unsynced items are mostly among the latest ones.
      const uint64_t span = std::min<uint64_t>(order_, 16);
      survival.order_end = order_ + 1 - (span == 0 ? 0 : survival.rng.below(span + 1));
      break;
    }
    case CrashKind::kRandom:
      survival.names = survival.contents = survival.lengths = 0.5;
      survival.filler = Survival::Filler::kMixed;
      break;
    case CrashKind::kZeroExtension: survival.names = survival.lengths = 1; break;
    case CrashKind::kNoiseExtension:
      survival.names = survival.lengths = 1;
      survival.filler = Survival::Filler::kNoise;
      break;
    case CrashKind::kNamesFirst: survival.names = 1; break;
    case CrashKind::kContentsFirst: survival.contents = survival.lengths = 1; break;
    case CrashKind::kStaleExtension: {
      survival.names = survival.lengths = 1;
      survival.filler = Survival::Filler::kFreed;
      MutexLock lock(mutex_);
      survival.freed = freed_;
      break;
    }
  }
  return image(std::move(survival));
}

/// Writes the sectors of `op` that survive; what the file grew by without them is filled.
void SimFileSystem::survive_write(SimContent& content, const Node& node, const ContentOp& op,
                                  Survival& survival) {
  const Bytes data = as_bytes_of(*op.data);
  std::vector<std::pair<uint64_t, Bytes>> kept;
  uint64_t end = survival.length(op.order) ? op.offset + data.size() : 0;
  for (uint64_t at = 0; at < data.size();) {
    const uint64_t offset = op.offset + at;
    const uint64_t size = std::min(data.size() - at, kSectorBytes - offset % kSectorBytes);
    if (survival.content(op.order)) {
      kept.emplace_back(offset, data.subspan(at, size));
      end = std::max(end, offset + size);
    }
    at += size;
  }
  if (end > content.size()) {
    using Filler = Survival::Filler;
    const uint64_t begin = content.size();
    std::string filler(end - begin, '\0');
    if (survival.filler == Filler::kNoise ||
        (survival.filler == Filler::kMixed && survival.rng.chance(0.5))) {
      const bool old_bytes = survival.rng.chance(0.5) && node.cut_off.size() > begin;
      const std::string old = old_bytes ? node.cut_off.read(begin, filler.size()) : std::string();
      for (char& c : filler) c = static_cast<char>(survival.rng.next());
      filler.replace(0, old.size(), old);
    }
    if (survival.filler == Filler::kFreed) {
      // What the file itself had there counts as freed, too.
      const SimContent* freed = &node.cut_off;
      for (const SimContent& other : survival.freed) {
        if (freed->size() <= begin || survival.rng.chance(0.5)) freed = &other;
      }
      const std::string old = freed->size() > begin ? freed->read(begin, filler.size()) : "";
      filler.replace(0, old.size(), old);
    }
    content.write(begin, as_bytes_of(filler));
  }
  for (const auto& [offset, bytes] : kept) content.write(offset, bytes);
}

SimContent SimFileSystem::surviving_content(const Node& node, Survival& survival) {
  SimContent content = node.durable;
  for (const ContentOp& op : node.unsynced) {
    // Of what a failed sync dropped, some may have reached the medium before.
    if (op.lost && (survival.contents == 1 || survival.rng.chance(0.5))) continue;
    if (op.is_truncate) {
      if (survival.content(op.order)) content.resize(op.offset);
    } else {
      survive_write(content, node, op, survival);
    }
  }
  return content;
}

SimFileSystem::Dirs SimFileSystem::surviving_dirs(Survival& survival) const {
  Dirs out = durable_dirs_;
  for (const DirsOp& op : unsynced_dirs_) {
    if (survival.name(op.order)) apply(op, out);
  }
  return out;
}

std::unique_ptr<SimFileSystem> SimFileSystem::image(Survival survival) const {
  auto out = std::make_unique<SimFileSystem>();
  MutexLock lock(mutex_);
  MutexLock out_lock(out->mutex_);
  out->freed_ = freed_;
  std::map<const Node*, NodePtr> copies;  // a file has one content under all its names
  for (const auto& [path, dir] : surviving_dirs(survival)) {
    std::map<std::string, NodePtr> entries = dir->durable;
    for (const EntryOp& op : dir->unsynced) {
      if (!survival.name(op.order)) continue;
      if (!op.from.empty()) entries.erase(op.from);
      if (op.node != nullptr) entries[op.to] = op.node;
    }
    for (auto& [name, node] : entries) {
      NodePtr& copy = copies[node.get()];
      if (copy == nullptr) {
        copy = std::make_shared<Node>();
        copy->durable = surviving_content(*node, survival);
        copy->current = copy->durable;
        copy->cut_off = node->cut_off.size() > node->current.size() ? node->cut_off : node->current;
      }
      node = copy;
    }
    auto out_dir = std::make_shared<Dir>();
    out_dir->durable = entries;
    out_dir->entries = std::move(entries);
    out->dirs_[path] = out->durable_dirs_[path] = std::move(out_dir);
  }
  return out;
}

}  // namespace aionbd
