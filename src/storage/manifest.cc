// See manifest.h.
#include "storage/manifest.h"

#include <utility>

#include "base/check.h"
#include "base/checksum.h"

namespace aionbd {
namespace {

Status damaged_manifest(std::string_view what, const std::string& path) {
  return corruption("manifest is damaged: " + std::string(what) + ": '" + path + "'");
}

}  // namespace

std::string encode_manifest(const Manifest& manifest) {
  ManifestHeader header;
  header.store_id = manifest.store_id;
  header.number = manifest.number;
  header.replay_after = manifest.replay_after;
  header.durable_lsn = manifest.durable_lsn;
  header.segments_count = manifest.segments.size();
  header.catalog_bytes = manifest.catalog.size();
  std::string out;
  Encoder encoder(&out);
  encoder.put_raw(&header, sizeof(header));
  for (const ManifestSegment& segment : manifest.segments) {
    encoder.put_raw(&segment, sizeof(segment));
  }
  encoder.put_raw(manifest.catalog.data(), manifest.catalog.size());
  encoder.pad_to(sizeof(uint64_t));
  encoder.put(
      checksum(as_bytes_of(out), checksum_seed(manifest.store_id, manifest.number, kSeedManifest)));
  return out;
}

Result<Manifest> decode_manifest(Bytes bytes, const std::string& path) {
  if (bytes.size() < sizeof(ManifestHeader) + sizeof(uint64_t) || bytes.size() % 8 != 0) {
    return damaged_manifest("length is wrong", path);
  }
  const auto header = read_as<ManifestHeader>(bytes);
  if (header.magic != kManifestMagic) return damaged_manifest("not a manifest", path);
  const Bytes body = bytes.first(bytes.size() - sizeof(uint64_t));
  const auto want = read_as<uint64_t>(bytes.last(sizeof(uint64_t)));
  if (want != checksum(body, checksum_seed(header.store_id, header.number, kSeedManifest))) {
    return damaged_manifest("checksum differs", path);
  }
  if (header.version > kFormatVersion) {
    return corruption("manifest was written by a newer version (format " +
                      std::to_string(header.version) + "): '" + path + "'");
  }
  if (header.version < kFormatVersionOldest || header.reserved != 0) {
    return damaged_manifest("unknown fields", path);
  }
  // The checksum was right, so what follows is a defect or malice; neither may read out of bounds.
  Decoder decoder(body);
  decoder.get_raw(sizeof(header));
  if (header.segments_count > decoder.remaining() / sizeof(ManifestSegment)) {
    return damaged_manifest("more segments than bytes", path);
  }
  Manifest out;
  out.store_id = header.store_id;
  out.number = header.number;
  out.replay_after = header.replay_after;
  out.durable_lsn = header.durable_lsn;
  out.segments.reserve(header.segments_count);
  for (uint64_t i = 0; i < header.segments_count; ++i) {
    const auto segment = read_as<ManifestSegment>(decoder.get_raw(sizeof(ManifestSegment)));
    if (!out.segments.empty() && out.segments.back().id >= segment.id) {
      return damaged_manifest("segments are out of order", path);
    }
    out.segments.push_back(segment);
  }
  out.catalog = as_text(decoder.get_raw(header.catalog_bytes));
  decoder.skip_padding(sizeof(uint64_t));
  if (!decoder.finished()) return damaged_manifest("sizes contradict the length", path);
  if (out.replay_after > out.durable_lsn || out.number == 0) {
    return damaged_manifest("numbers contradict each other", path);
  }
  return out;
}

Result<Manifest> read_manifest(FileSystem* files, const std::string& dir) {
  const std::string path = dir + "/" + std::string(kManifestName);
  auto bytes = files->read(path, kManifestBytesMax);
  if (!bytes.has_value()) {
    if (bytes.error().code() == Code::kResourceExhausted) return damaged_manifest("too long", path);
    return bytes.error();
  }
  return decode_manifest(as_bytes_of(*bytes), path);
}

Status write_manifest(FileSystem* files, const std::string& dir, const Manifest& manifest,
                      ManifestStep* step) {
  *step = ManifestStep::kOldIsRoot;
  const std::string path = dir + "/" + std::string(kManifestName);
  const std::string temp = path + std::string(kTempSuffix);
  const std::string bytes = encode_manifest(manifest);
  if (bytes.size() > kManifestBytesMax) {
    return resource_exhausted("manifest is too long: " + std::to_string(bytes.size()) +
                              " bytes, limit is " + std::to_string(kManifestBytesMax));
  }
  // What is written is checked as what is read will be.
  CHECK_TRUE(decode_manifest(as_bytes_of(bytes), path).has_value());
  {
    ASSIGN_OR_RETURN(auto file, files->create(temp));
    RETURN_IF_ERROR(file->append(as_bytes_of(bytes)));
    RETURN_IF_ERROR(file->sync());
  }
  *step = ManifestStep::kUnknown;
  const Status renamed = files->rename(temp, path);
  if (!renamed.ok()) {
    // No space for a name is a clean refusal; of any other error the outcome is unknown.
    if (renamed.code() == Code::kStorageFull) *step = ManifestStep::kOldIsRoot;
    return renamed;
  }
  RETURN_IF_ERROR(files->sync_dir(dir));
  *step = ManifestStep::kNewIsRoot;
  return Status();
}

}  // namespace aionbd
