// Any bytes are either refused as a payload or decode to one that encodes to the same bytes.
#include "base/check.h"
#include "payload/payload.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const aionbd::Bytes bytes{reinterpret_cast<const std::byte*>(data), size};
  if (!aionbd::check_payload(bytes).ok()) return 0;
  const auto again = aionbd::encode_payload(aionbd::decode_payload(bytes));
  CHECK_TRUE(again.has_value());
  CHECK_TRUE(*again == aionbd::as_text(bytes));
  return 0;
}
