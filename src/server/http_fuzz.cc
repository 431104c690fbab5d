// Bytes as a client sends them: head, chunked body, path, query. Besides not crashing: an accepted
// head means the same to Boost.Beast, and how the bytes are split changes nothing.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/utf8.h"
#include "server/beast_oracle.h"
#include "server/http_head.h"
#include "server/routes.h"

namespace aionbd {
namespace {

void check_head(std::string_view text) {
  // Whole, and in two pieces: the scan must end at the same place with the same verdict.
  const HeadScan whole = scan_head(text, 0);
  const size_t half = text.size() / 2;
  HeadScan pieces = scan_head(text.substr(0, half), 0);
  if (!pieces.fault && pieces.end == 0) pieces = scan_head(text, half);
  CHECK_EQ(whole.fault.has_value(), pieces.fault.has_value());
  if (whole.fault) return;
  CHECK_EQ(whole.end, pieces.end);
  if (whole.end == 0) return;
  const std::string_view head_text = text.substr(whole.begin, whole.end - whole.begin);
  HttpHead head;
  if (parse_head(head_text, head)) return;
  const std::string difference = beast_disagrees(head_text, head);
  CHECK_EQ(difference, std::string());
  static_cast<void>(find_route(head.method, head.path));
  std::string problem;
  static_cast<void>(parse_query(head.query, problem));
}

struct Decoded {
  ChunkDecoder::Progress progress = ChunkDecoder::Progress::kMore;
  std::string body;
};

Decoded decode(std::string_view text, size_t piece) {
  constexpr uint64_t kBodyMax = 1 << 16;
  Decoded out;
  ChunkDecoder decoder;
  while (!text.empty() && out.progress == ChunkDecoder::Progress::kMore) {
    std::string_view part = text.substr(0, piece);
    text.remove_prefix(part.size());
    while (!part.empty() && out.progress == ChunkDecoder::Progress::kMore) {
      size_t used = 0;
      std::string_view data;
      out.progress = decoder.feed(part, kBodyMax, used, data);
      CHECK_TRUE(used > 0 && used <= part.size());
      out.body += data;
      part.remove_prefix(used);
    }
  }
  CHECK_TRUE(out.body.size() <= kBodyMax);
  return out;
}

}  // namespace
}  // namespace aionbd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  aionbd::check_head(text);
  const aionbd::Decoded whole = aionbd::decode(text, text.size() + 1);
  const aionbd::Decoded bytes = aionbd::decode(text, 1);
  CHECK_TRUE(whole.progress == bytes.progress);
  CHECK_TRUE(whole.body == bytes.body);
  if (const auto once = aionbd::percent_decode(text)) CHECK_TRUE(aionbd::is_utf8(*once));
  return 0;
}
