// The bytes choose a filter and a payload; the compiled program must agree with the model.
#include "base/check.h"
#include "payload/filter.h"
#include "payload/filter_model.h"
#include "payload/payload.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kFilterDepth = 6;
  constexpr size_t kPayloadDepth = 4;
  constexpr size_t kBytesMax = 4096;  // enough for any filter the generator makes in good time
  size_t at = 0;
  const aionbd::Draw draw = [&](uint64_t bound) -> uint64_t {
    return at < size && at < kBytesMax ? data[at++] % bound : 0;
  };
  const aionbd::Filter filter = aionbd::random_filter(draw, kFilterDepth);
  const auto compiled = aionbd::CompiledFilter::compile(filter);
  CHECK_TRUE(compiled.has_value());
  do {
    const aionbd::Payload payload = aionbd::random_object(draw, kPayloadDepth);
    const auto encoded = aionbd::encode_payload(payload);
    CHECK_TRUE(encoded.has_value());
    CHECK_EQ(compiled->matches(aionbd::as_bytes_of(*encoded)),
             aionbd::model_matches(filter, payload));
  } while (at < size && at < kBytesMax);
  return 0;
}
