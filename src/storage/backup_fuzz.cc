// Fuzz target: any bytes as a backup, its manifest and its packed files. What is refused is refused
// as damaged; what is unpacked has the names of a store, and the sizes the manifest states.
//
// Input: one byte of choices, the size of the manifest (u32), the manifest, then the content of
// every packed file. With bit 0 the manifest's checksum is put right first, with bit 1 that of the
// store's manifest inside it, with bit 2 what the first file says of its chunks.
#include <zstd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "base/check.h"
#include "base/checksum.h"
#include "io/sim_file_system.h"
#include "storage/backup.h"

namespace aionbd {
namespace {

constexpr uint64_t kSeedOfBackup = 0x4241434B;
constexpr uint64_t kSeedOfChunk = 0x43484E4B;
/// Above this a claimed size is not worth making.
constexpr uint64_t kUnpackedMax = uint64_t{4} << 20;

struct Input {
  uint8_t choices = 0;
  std::string manifest;
  std::string packed;
};

template <typename T>
void put(std::string* out, size_t at, const T& value) {
  std::memcpy(out->data() + at, &value, sizeof(T));
}

/// Makes the chunks and the entry of the first file agree, as far as the frames unpack.
void repair_chunks(Input* input, uint64_t store_id, BackupFile* file) {
  uint64_t seed =
      checksum_seed(store_id, file->id, kSeedOfChunk + static_cast<uint64_t>(file->kind));
  std::string raw(kBackupChunkBytes, '\0');
  uint64_t total = 0;
  size_t at = 0;
  while (input->packed.size() - at >= sizeof(BackupChunk)) {
    auto chunk = read_as<BackupChunk>(as_bytes_of(input->packed).subspan(at));
    const size_t body = at + sizeof(chunk);
    if (chunk.packed_bytes > input->packed.size() - body) break;
    const size_t size =
        ZSTD_decompress(raw.data(), raw.size(), input->packed.data() + body, chunk.packed_bytes);
    if (ZSTD_isError(size) != 0) break;
    chunk.raw_bytes = static_cast<uint32_t>(size);
    chunk.checksum = seed = checksum(as_bytes_of(raw).first(size), seed);
    put(&input->packed, at, chunk);
    total += size;
    at = body + chunk.packed_bytes;
  }
  file->packed_bytes = input->packed.size();
  file->raw_bytes = total;
  file->checksum = seed;
}

void repair(Input* input) {
  std::string& bytes = input->manifest;
  if (bytes.size() < sizeof(BackupHeader) + sizeof(BackupFile) + sizeof(uint64_t)) return;
  const auto header = read_as<BackupHeader>(as_bytes_of(bytes));
  const size_t end = bytes.size() - sizeof(uint64_t);
  if ((input->choices & 2) != 0 && header.manifest_bytes <= end - sizeof(header) &&
      header.manifest_bytes >= sizeof(ManifestHeader) + sizeof(uint64_t)) {
    const size_t begin = end - header.manifest_bytes;
    const auto inner = read_as<ManifestHeader>(as_bytes_of(bytes).subspan(begin));
    const Bytes body = as_bytes_of(bytes).subspan(begin, header.manifest_bytes - sizeof(uint64_t));
    put(&bytes, end - sizeof(uint64_t),
        checksum(body, checksum_seed(inner.store_id, inner.number, kSeedManifest)));
  }
  if ((input->choices & 4) != 0) {
    auto file = read_as<BackupFile>(as_bytes_of(bytes).subspan(sizeof(header)));
    repair_chunks(input, header.store_id, &file);
    put(&bytes, sizeof(header), file);
  }
  if ((input->choices & 1) != 0) {
    put(&bytes, end,
        checksum(as_bytes_of(bytes).first(end),
                 checksum_seed(header.store_id, header.number, kSeedOfBackup)));
  }
}

void write_file(SimFileSystem& files, const std::string& path, const std::string& content) {
  CHECK_TRUE(files.create(path).value()->append(as_bytes_of(content)).ok());
}

void run(Input input) {
  repair(&input);
  const uint64_t number = input.manifest.size() < sizeof(BackupHeader)
                              ? 1
                              : read_as<BackupHeader>(as_bytes_of(input.manifest)).number;
  SimFileSystem files;
  CHECK_TRUE(files.make_dirs("b").ok() && files.make_dirs("out").ok());
  write_file(files, "b/BACKUP-" + hex16(number), input.manifest);
  CHECK_TRUE(list_backups(&files, "b").value() == std::vector<uint64_t>{number});
  const auto backup = read_backup(&files, "b", number);
  if (!backup.has_value()) {
    CHECK_TRUE(backup.error().code() == Code::kCorruption);
    return;
  }
  uint64_t total = 0;
  for (const BackupFile& file : backup->files) {
    total += std::min(file.raw_bytes, kUnpackedMax + 1);
    if (total > kUnpackedMax) return;
    if (file.kind == BackupKind::kLog) {
      write_file(files, "b/log-" + hex16(number) + "-" + hex16(file.id) + ".zst", input.packed);
    }
    for (const ManifestSegment& segment : backup->manifest.segments) {
      if (file.kind != BackupKind::kSegment || segment.id != file.id) continue;
      write_file(files,
                 "b/seg-" + hex16(backup->manifest.store_id) + "-" + hex16(segment.id) + "-" +
                     hex16(segment.trailer_checksum) + ".zst",
                 input.packed);
    }
  }
  const Status done = unpack_backup(&files, "b", *backup, "out", {});
  for (const std::string& name : files.list("out").value()) {
    CHECK_TRUE(name == kManifestName || parse_log_name(name) || parse_segment_name(name));
  }
  if (!done.ok()) {
    CHECK_TRUE(done.code() == Code::kCorruption);
    return;
  }
  CHECK_EQ(files.list("out").value().size(), backup->files.size() + 1);
  for (const BackupFile& file : backup->files) {
    const std::string name =
        file.kind == BackupKind::kLog ? log_name(file.id) : segment_name(file.id);
    CHECK_EQ(files.file_size("out/" + name).value(), file.raw_bytes);
  }
}

}  // namespace
}  // namespace aionbd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace aionbd;
  constexpr size_t kHeadBytes = 5;
  if (size < kHeadBytes) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Input input;
  input.choices = data[0];
  uint32_t manifest_bytes = 0;
  std::memcpy(&manifest_bytes, data + 1, sizeof(manifest_bytes));
  input.manifest = text.substr(kHeadBytes, manifest_bytes);
  input.packed = text.substr(kHeadBytes + input.manifest.size());
  run(std::move(input));
  return 0;
}
