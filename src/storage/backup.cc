// See backup.h. Nothing in a backup directory is believed: no name is taken from a file (all are
// made of numbers), no size is allocated that the file itself does not have, and what unpacks to
// more than it should stops there.
#include "storage/backup.h"

#include <zstd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/checksum.h"

namespace aionbd {
namespace {

constexpr uint64_t kBackupMagic = BackupHeader().magic;
constexpr uint64_t kSeedBackup = 0x4241434B;
constexpr uint64_t kSeedChunk = 0x43484E4B;
constexpr std::string_view kBackupPrefix = "BACKUP-";
/// Entries of a million files, and a store's manifest of them; read whole, so it has a cap.
constexpr uint64_t kBackupManifestBytesMax = uint64_t{256} << 20;

std::string backup_name(uint64_t number) {
  return std::string(kBackupPrefix) + hex16(number);
}

/// The file in the backup directory. A segment's name stands for its content: the trailer checksum
/// covers all of it.
std::string object_name(const Backup& backup, const BackupFile& file) {
  if (file.kind == BackupKind::kLog) {
    return "log-" + hex16(backup.number) + "-" + hex16(file.id) + ".zst";
  }
  uint64_t trailer = 0;
  for (const ManifestSegment& segment : backup.manifest.segments) {
    if (segment.id == file.id) trailer = segment.trailer_checksum;
  }
  return "seg-" + hex16(backup.manifest.store_id) + "-" + hex16(file.id) + "-" + hex16(trailer) +
         ".zst";
}

std::string store_name(const BackupFile& file) {
  return file.kind == BackupKind::kLog ? log_name(file.id) : segment_name(file.id);
}

Status damaged(std::string_view what, const std::string& path) {
  return corruption("backup is damaged: " + std::string(what) + ": '" + path + "'");
}

uint64_t first_seed(uint64_t store_id, const BackupFile& file) {
  return checksum_seed(store_id, file.id, kSeedChunk + static_cast<uint64_t>(file.kind));
}

// ---- The backup's manifest ----------------------------------------------------------------------

std::string encode_backup(const Backup& backup) {
  const std::string manifest = encode_manifest(backup.manifest);
  BackupHeader header;
  header.store_id = backup.manifest.store_id;
  header.number = backup.number;
  header.files_count = backup.files.size();
  header.manifest_bytes = manifest.size();
  header.last_lsn = backup.last_lsn;
  std::string out;
  Encoder encoder(&out);
  encoder.put_raw(&header, sizeof(header));
  for (const BackupFile& file : backup.files) encoder.put_raw(&file, sizeof(file));
  encoder.put_raw(manifest.data(), manifest.size());
  encoder.put(
      checksum(as_bytes_of(out), checksum_seed(header.store_id, header.number, kSeedBackup)));
  return out;
}

/// Every file the manifest names is there with its size, and the logs reach from its start to the
/// cut without a gap; nothing else is there.
Status check_files(const Backup& backup, const std::string& path) {
  std::map<uint64_t, uint64_t> segments;
  std::vector<uint64_t> logs;
  for (const BackupFile& file : backup.files) {
    const bool known = file.kind == BackupKind::kSegment || file.kind == BackupKind::kLog;
    if (!known || file.reserved != 0) return damaged("a file of unknown kind", path);
    if (file.kind == BackupKind::kLog) {
      if (!logs.empty() && file.id <= logs.back()) return damaged("logs are out of order", path);
      logs.push_back(file.id);
    } else if (!segments.emplace(file.id, file.raw_bytes).second) {
      return damaged("a segment is there twice", path);
    }
  }
  for (const ManifestSegment& segment : backup.manifest.segments) {
    const auto found = segments.find(segment.id);
    if (found == segments.end() || found->second != segment.file_bytes) {
      return damaged("a segment of the manifest is missing or of another size", path);
    }
  }
  if (segments.size() != backup.manifest.segments.size()) {
    return damaged("more segments than the manifest names", path);
  }
  const bool logs_fit = !logs.empty() && logs.front() >= 1 &&
                        logs.front() <= backup.manifest.replay_after + 1 &&
                        backup.last_lsn >= backup.manifest.replay_after;
  return logs_fit ? Status() : damaged("its log does not fit its manifest", path);
}

Result<Backup> decode_backup(Bytes bytes, uint64_t number, const std::string& path) {
  if (bytes.size() < sizeof(BackupHeader) + sizeof(uint64_t)) {
    return damaged("it is too short", path);
  }
  const auto header = read_as<BackupHeader>(bytes);
  if (header.magic != kBackupMagic) return damaged("not a backup", path);
  const Bytes body = bytes.first(bytes.size() - sizeof(uint64_t));
  const auto want = read_as<uint64_t>(bytes.last(sizeof(uint64_t)));
  if (want != checksum(body, checksum_seed(header.store_id, header.number, kSeedBackup))) {
    return damaged("checksum differs", path);
  }
  if (header.version > kFormatVersion) {
    return corruption("backup was written by a newer version (format " +
                      std::to_string(header.version) + "): '" + path + "'");
  }
  if (header.version < kFormatVersionOldest || header.reserved != 0 || header.reserved2 != 0) {
    return damaged("unknown fields", path);
  }
  if (header.number != number) return damaged("it has another backup's name", path);
  Decoder decoder(body);
  decoder.get_raw(sizeof(header));
  if (header.files_count > decoder.remaining() / sizeof(BackupFile)) {
    return damaged("more files than bytes", path);
  }
  Backup out;
  out.number = header.number;
  out.last_lsn = header.last_lsn;
  out.files.reserve(header.files_count);
  for (uint64_t i = 0; i < header.files_count; ++i) {
    out.files.push_back(read_as<BackupFile>(decoder.get_raw(sizeof(BackupFile))));
  }
  if (header.manifest_bytes != decoder.remaining()) {
    return damaged("sizes contradict the length", path);
  }
  ASSIGN_OR_RETURN(out.manifest, decode_manifest(decoder.get_raw(header.manifest_bytes), path));
  if (out.manifest.store_id != header.store_id) return damaged("two store ids", path);
  RETURN_IF_ERROR(check_files(out, path));
  return out;
}

// ---- Packing ------------------------------------------------------------------------------------

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

/// Packs files one after the other. Thread safety: single owner.
class Packer {
 public:
  Packer(FileSystem* files, uint64_t store_id, int level)
      : files_(files), store_id_(store_id), level_(level), context_(ZSTD_createCCtx()) {}

  /// Packs the first `file.raw_bytes` bytes of `from`; completes `file`. The packed file gets its
  /// name when it is whole and synced.
  Status pack(const std::string& from, const std::string& to, BackupFile& file,
              const std::function<Status(uint64_t)>& after_chunk) {
    const std::string temp = to + std::string(kTempSuffix);
    ASSIGN_OR_RETURN(auto target, files_->create(temp));
    uint64_t seed = first_seed(store_id_, file);
    for (uint64_t at = 0; at < file.raw_bytes;) {
      const uint64_t want = std::min(kBackupChunkBytes, file.raw_bytes - at);
      ASSIGN_OR_RETURN(const std::string raw, files_->read_at(from, at, want));
      if (raw.size() != want) return corruption("file became shorter: '" + from + "'");
      ASSIGN_OR_RETURN(seed, pack_chunk(raw, seed, *target));
      at += want;
      RETURN_IF_ERROR(after_chunk(want));
    }
    file.checksum = seed;
    file.packed_bytes = target->size();
    RETURN_IF_ERROR(target->sync());
    target.reset();
    return files_->rename(temp, to);
  }

 private:
  /// The chunk's checksum, which is the next one's seed.
  Result<uint64_t> pack_chunk(const std::string& raw, uint64_t seed, WritableFile& target) {
    packed_.resize(ZSTD_compressBound(raw.size()));
    const size_t size = context_ == nullptr
                            ? static_cast<size_t>(-1)
                            : ZSTD_compressCCtx(context_.get(), packed_.data(), packed_.size(),
                                                raw.data(), raw.size(), level_);
    if (ZSTD_isError(size) != 0) return resource_exhausted("zstd cannot compress: out of memory");
    BackupChunk chunk;
    chunk.raw_bytes = static_cast<uint32_t>(raw.size());
    chunk.packed_bytes = static_cast<uint32_t>(size);
    chunk.checksum = checksum(as_bytes_of(raw), seed);
    const Bytes parts[] = {bytes_of(chunk), as_bytes_of(packed_).first(size)};
    RETURN_IF_ERROR(target.append(parts));
    return chunk.checksum;
  }

  FileSystem* const files_;
  const uint64_t store_id_;
  const int level_;
  const std::unique_ptr<ZSTD_CCtx, FreeContext> context_;
  std::string packed_;
};

/// Unpacks `from` into the new file `to`.
Status unpack_file(FileSystem* files, uint64_t store_id, const BackupFile& file,
                   const std::string& from, const std::string& to,
                   const std::function<Status(uint64_t)>& after_chunk) {
  const std::unique_ptr<ZSTD_DCtx, FreeContext> context(ZSTD_createDCtx());
  if (context == nullptr) return resource_exhausted("zstd cannot decompress: out of memory");
  ASSIGN_OR_RETURN(const uint64_t packed_bytes, files->file_size(from));
  if (packed_bytes != file.packed_bytes) return damaged("a file has another length", from);
  ASSIGN_OR_RETURN(auto target, files->create(to));
  std::string raw(kBackupChunkBytes, '\0');
  uint64_t seed = first_seed(store_id, file);
  uint64_t done = 0;
  for (uint64_t at = 0; at < packed_bytes;) {
    ASSIGN_OR_RETURN(const std::string head, files->read_at(from, at, sizeof(BackupChunk)));
    if (head.size() != sizeof(BackupChunk)) return damaged("a chunk is cut", from);
    const auto chunk = read_as<BackupChunk>(as_bytes_of(head));
    at += sizeof(chunk);
    const bool sane = chunk.raw_bytes > 0 && chunk.raw_bytes <= kBackupChunkBytes &&
                      chunk.packed_bytes <= ZSTD_compressBound(kBackupChunkBytes) &&
                      chunk.packed_bytes <= packed_bytes - at &&
                      chunk.raw_bytes <= file.raw_bytes - done;
    if (!sane) return damaged("a chunk has impossible sizes at offset " + std::to_string(at), from);
    ASSIGN_OR_RETURN(const std::string packed, files->read_at(from, at, chunk.packed_bytes));
    const size_t size = ZSTD_decompressDCtx(context.get(), raw.data(), chunk.raw_bytes,
                                            packed.data(), packed.size());
    if (ZSTD_isError(size) != 0 || size != chunk.raw_bytes) {
      return damaged("a chunk does not unpack at offset " + std::to_string(at), from);
    }
    const Bytes bytes = as_bytes_of(raw).first(size);
    if (checksum(bytes, seed) != chunk.checksum) {
      return damaged("chunk checksum differs at offset " + std::to_string(at), from);
    }
    RETURN_IF_ERROR(target->append(bytes));
    seed = chunk.checksum;
    done += size;
    at += chunk.packed_bytes;
    RETURN_IF_ERROR(after_chunk(size));
  }
  if (done != file.raw_bytes || seed != file.checksum) {
    return damaged("a file is not what the backup says", from);
  }
  return target->sync();
}

/// What an earlier backup in the same place stored.
Result<std::map<std::string, BackupFile>> stored_segments(FileSystem* files, const std::string& dir,
                                                          std::span<const uint64_t> numbers,
                                                          uint64_t store_id) {
  std::map<std::string, BackupFile> out;
  for (const uint64_t number : numbers) {
    ASSIGN_OR_RETURN(const Backup earlier, read_backup(files, dir, number));
    if (earlier.manifest.store_id != store_id) {
      return failed_precondition("the directory holds backups of another store");
    }
    for (const BackupFile& file : earlier.files) {
      if (file.kind == BackupKind::kSegment) out[object_name(earlier, file)] = file;
    }
  }
  return out;
}

/// Gives a backup whose files are there its name.
Status publish_backup(FileSystem* files, const std::string& dir, const Backup& backup) {
  // What the manifest names is durable before it is.
  RETURN_IF_ERROR(files->sync_dir(dir));
  const std::string path = dir + "/" + backup_name(backup.number);
  const std::string temp = path + std::string(kTempSuffix);
  const std::string bytes = encode_backup(backup);
  RETURN_IF_ERROR(decode_backup(as_bytes_of(bytes), backup.number, path).status());
  {
    ASSIGN_OR_RETURN(auto file, files->create(temp));
    RETURN_IF_ERROR(file->append(as_bytes_of(bytes)));
    RETURN_IF_ERROR(file->sync());
  }
  RETURN_IF_ERROR(files->rename(temp, path));
  return files->sync_dir(dir);
}

// ---- Removing -----------------------------------------------------------------------------------

/// Whether `name` is `prefix`, so many numbers with "-" between them, and `suffix`.
bool is_made_of(std::string_view name, std::string_view prefix, size_t numbers,
                std::string_view suffix) {
  constexpr size_t kDigits = 16;
  if (name.size() != prefix.size() + numbers * (kDigits + 1) - 1 + suffix.size() ||
      !name.starts_with(prefix) || !name.ends_with(suffix)) {
    return false;
  }
  for (size_t i = 0; i < numbers; ++i) {
    const size_t at = prefix.size() + i * (kDigits + 1);
    if (i > 0 && name[at - 1] != '-') return false;
    if (!parse_hex16(name.substr(at, kDigits))) return false;
  }
  return true;
}

/// Whether a file can only be ours: packed, or never finished.
bool is_packed_or_temporary(std::string_view name) {
  const bool temporary = name.ends_with(kTempSuffix);
  if (temporary) name.remove_suffix(kTempSuffix.size());
  return is_made_of(name, "seg-", 3, ".zst") || is_made_of(name, "log-", 2, ".zst") ||
         (temporary && is_made_of(name, kBackupPrefix, 1, ""));
}

/// Removes all backups but the newest `keep`, then what no other names. REQUIRES: the directory's
/// lock is held.
Status remove_older(FileSystem* files, const std::string& dir, uint64_t keep,
                    BackupCounts& counts) {
  ASSIGN_OR_RETURN(const std::vector<uint64_t> numbers, list_backups(files, dir));
  const size_t older = numbers.size() - std::min<uint64_t>(keep, numbers.size());
  std::set<std::string, std::less<>> named;
  for (size_t i = older; i < numbers.size(); ++i) {
    ASSIGN_OR_RETURN(const Backup kept, read_backup(files, dir, numbers[i]));
    for (const BackupFile& file : kept.files) named.insert(object_name(kept, file));
  }
  for (size_t i = 0; i < older; ++i) {
    RETURN_IF_ERROR(files->remove(dir + "/" + backup_name(numbers[i])));
    ++counts.removed;
  }
  // Should one of these manifests come back after a power cut, its files must be there still.
  RETURN_IF_ERROR(files->sync_dir(dir));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, files->list(dir));
  for (const std::string& name : names) {
    if (!is_packed_or_temporary(name) || named.contains(name)) continue;
    const std::string path = dir + "/" + name;
    ASSIGN_OR_RETURN(const uint64_t bytes, files->file_size(path));
    RETURN_IF_ERROR(files->remove(path));
    counts.removed_bytes += bytes;
  }
  return files->sync_dir(dir);
}

}  // namespace

// ---- Front door ---------------------------------------------------------------------------------

Result<std::vector<uint64_t>> list_backups(FileSystem* files, const std::string& dir) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, files->list(dir));
  std::vector<uint64_t> out;
  for (const std::string_view name : names) {
    if (!name.starts_with(kBackupPrefix)) continue;
    if (const auto number = parse_hex16(name.substr(kBackupPrefix.size()))) out.push_back(*number);
  }
  std::sort(out.begin(), out.end());
  return out;
}

Result<Backup> read_backup(FileSystem* files, const std::string& dir, uint64_t number) {
  const std::string path = dir + "/" + backup_name(number);
  auto bytes = files->read(path, kBackupManifestBytesMax);
  if (!bytes.has_value()) {
    if (bytes.error().code() == Code::kResourceExhausted) return damaged("it is too long", path);
    return bytes.error();
  }
  return decode_backup(as_bytes_of(*bytes), number, path);
}

Result<BackupCounts> write_backup(FileSystem* files, const BackupSource& source,
                                  const std::string& dir, int level, uint64_t keep,
                                  const CopyProgress& progress) {
  RETURN_IF_ERROR(files->make_dirs(dir));
  ASSIGN_OR_RETURN(const auto lock, files->lock(dir + "/" + std::string(kLockName)));
  ASSIGN_OR_RETURN(const std::vector<uint64_t> earlier, list_backups(files, dir));
  const uint64_t store_id = source.manifest.store_id;
  ASSIGN_OR_RETURN(const auto stored, stored_segments(files, dir, earlier, store_id));
  Backup backup;
  backup.number = earlier.empty() ? 1 : earlier.back() + 1;
  backup.manifest = source.manifest;
  backup.last_lsn = source.last_lsn;
  for (const ManifestSegment& segment : source.manifest.segments) {
    backup.files.push_back({BackupKind::kSegment, 0, segment.id, segment.file_bytes, 0, 0});
  }
  for (const LogFile& log : source.logs) {
    backup.files.push_back({BackupKind::kLog, 0, log.first_lsn, log.bytes, 0, 0});
  }
  BackupCounts counts;
  counts.number = backup.number;
  counts.last_lsn = backup.last_lsn;
  uint64_t done = 0;
  const auto after = [&](uint64_t bytes) -> Status {
    done += bytes;
    if (!progress || progress(done)) return {};
    return unavailable("backup was stopped");
  };
  Packer packer(files, store_id, level);
  for (BackupFile& file : backup.files) {
    const std::string object = object_name(backup, file);
    const std::string path = dir + "/" + object;
    ++counts.files;
    counts.raw_bytes += file.raw_bytes;
    const auto before = stored.find(object);
    const auto size = files->file_size(path);
    if (before != stored.end() && size.has_value() && *size == before->second.packed_bytes) {
      file = before->second;
      ++counts.files_shared;
      RETURN_IF_ERROR(after(file.raw_bytes));
    } else {
      if (file.kind == BackupKind::kSegment) {
        const ManifestSegment& segment = source.manifest.segments[counts.files - 1];
        ASSIGN_OR_RETURN(
            const auto whole,
            open_segment_file(files, source.dir, store_id, file.id,
                              SegmentStamp{segment.file_bytes, segment.trailer_checksum}));
        RETURN_IF_ERROR(whole->verify());
      }
      RETURN_IF_ERROR(packer.pack(source.dir + "/" + store_name(file), path, file, after));
      counts.written_bytes += file.packed_bytes;
    }
    counts.packed_bytes += file.packed_bytes;
  }
  RETURN_IF_ERROR(publish_backup(files, dir, backup));
  if (keep == 0) return counts;
  const Status removed = remove_older(files, dir, keep, counts);
  if (removed.ok()) return counts;
  return removed.with_context("backup " + std::to_string(backup.number) +
                              " was made, but older ones could not be removed");
}

Result<uint64_t> unpacked_bytes(const Backup& backup) {
  uint64_t out = encode_manifest(backup.manifest).size();
  for (const BackupFile& file : backup.files) {
    if (__builtin_add_overflow(out, file.raw_bytes, &out)) {
      return corruption("backup is damaged: its sizes are impossible");
    }
  }
  return out;
}

Status unpack_backup(FileSystem* files, const std::string& dir, const Backup& backup,
                     const std::string& out, const CopyProgress& progress) {
  uint64_t done = 0;
  const auto after = [&](uint64_t bytes) -> Status {
    done += bytes;
    if (!progress || progress(done)) return {};
    return unavailable("restore was stopped");
  };
  for (const BackupFile& file : backup.files) {
    RETURN_IF_ERROR(unpack_file(files, backup.manifest.store_id, file,
                                dir + "/" + object_name(backup, file), out + "/" + store_name(file),
                                after));
  }
  RETURN_IF_ERROR(files->sync_dir(out));
  ManifestStep step;
  return write_manifest(files, out, backup.manifest, &step);
}

}  // namespace aionbd
