// Fuzz target: any bytes as a manifest. What is accepted must encode to the same bytes again, those
// of an older version but for the version.
//
// Input: one byte of choices, then the file. With bit 0 the checksum is put right first.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "base/check.h"
#include "storage/manifest.h"

namespace aionbd {
namespace {

void put_checksum_right(std::string* bytes) {
  const auto header = read_as<ManifestHeader>(as_bytes_of(*bytes));
  const Bytes body = as_bytes_of(*bytes).first(bytes->size() - sizeof(uint64_t));
  const uint64_t sum = checksum(body, checksum_seed(header.store_id, header.number, kSeedManifest));
  std::memcpy(bytes->data() + body.size(), &sum, sizeof(sum));
}

}  // namespace
}  // namespace aionbd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace aionbd;
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if ((data[0] & 1) != 0 && bytes.size() >= sizeof(ManifestHeader) + sizeof(uint64_t)) {
    put_checksum_right(&bytes);
  }
  const auto manifest = decode_manifest(as_bytes_of(bytes), "MANIFEST");
  if (!manifest.has_value()) {
    CHECK_TRUE(manifest.error().code() == Code::kCorruption);
    return 0;
  }
  std::memcpy(bytes.data() + offsetof(ManifestHeader, version), &kFormatVersion,
              sizeof(kFormatVersion));
  put_checksum_right(&bytes);
  CHECK_TRUE(encode_manifest(*manifest) == bytes);
  return 0;
}
