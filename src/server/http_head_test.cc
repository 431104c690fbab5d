#include "server/http_head.h"

#include <gtest/gtest.h>

#include "server/beast_oracle.h"

namespace aionbd {
namespace {

/// Status of a head: 200 if accepted, 0 if dropped, -1 if incomplete.
int judge(std::string_view text) {
  const HeadScan scan = scan_head(text, 0);
  if (scan.fault) return scan.fault->drop ? 0 : scan.fault->status;
  if (scan.end == 0) return -1;
  HttpHead head;
  const std::string_view head_text = text.substr(scan.begin, scan.end - scan.begin);
  const auto fault = parse_head(head_text, head);
  if (fault) return fault->status;
  EXPECT_EQ(beast_disagrees(head_text, head), "") << text;
  return 200;
}

/// A POST head with `fields` added (each line with its CRLF).
std::string post(std::string_view fields) {
  return "POST /distance HTTP/1.1\r\nHost: a\r\n" + std::string(fields) + "\r\n";
}

TEST(HttpHead, AcceptsPlainRequests) {
  EXPECT_EQ(judge("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
  EXPECT_EQ(judge("GET / HTTP/1.0\r\n\r\n"), 200);
  EXPECT_EQ(judge("\r\nGET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"), 200);
  EXPECT_EQ(judge("GET http://a/x?y=1 HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
  EXPECT_EQ(judge("DELETE /collections/a%20b HTTP/1.1\r\nHost:\r\n\r\n"), 200);
  EXPECT_EQ(judge("BREW / HTTP/1.1\r\nHost: a\r\n\r\n"), 200) << "405 is the router's to say";
  EXPECT_EQ(judge(post("Content-Length: 5\r\n")), 200);
  EXPECT_EQ(judge(post("content-length:5\r\n")), 200);
  EXPECT_EQ(judge(post("Transfer-Encoding: chunked\r\n")), 200);
  EXPECT_EQ(judge(post("Transfer-Encoding: Chunked\r\n")), 200);
  EXPECT_EQ(judge(post("Expect: 100-continue\r\nContent-Length: 5\r\n")), 200);
  EXPECT_EQ(judge(post("X: a\tb \xc3\xa9\r\n")), 200);
}

TEST(HttpHead, RefusesAmbiguousFraming) {
  for (const char* fields : {
           "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
           "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
           "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
           "Content-Length: 5\r\nContent-Length: 5\r\n",
           "Content-Length: 5\r\nContent-Length: 6\r\n",
           "Content-Length: +5\r\n",
           "Content-Length: -5\r\n",
           "Content-Length:  5\r\n",
           "Content-Length: 5 \r\n",
           "Content-Length: 0x5\r\n",
           "Content-Length: 5,5\r\n",
           "Content-Length:\r\n",
           "Content-Length: 9223372036854775808\r\n",
           "Content-Length: 18446744073709551621\r\n",
           "Content-Length: 99999999999999999999999\r\n",
           "Transfer-Encoding: chunked, gzip\r\n",
           "Transfer-Encoding: gzip, chunked\r\n",
           "Transfer-Encoding: identity\r\n",
           "Transfer-Encoding: xchunked\r\n",
           "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
           "Transfer-Encoding: chunked, chunked\r\n",
           "Transfer-Encoding: \tchunked\r\n",
           "Transfer-Encoding: \vchunked\r\n",
           "Transfer-Encoding: chunked \r\n",
           "Transfer-Encoding:\r\n",
           "Content-Encoding: gzip\r\n",
           "Expect: 200-ok\r\n",
           "Content-Type: application/json\r\nContent-Type: application/json\r\n",
           "Connection: a b\r\n",
       }) {
    EXPECT_EQ(judge(post(fields)), 400) << fields;
  }
  EXPECT_EQ(judge("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

TEST(HttpHead, RefusesMalformedLines) {
  for (const std::string& text : {
           std::string("GET / HTTP/1.1\nHost: a\n\n"),
           std::string("GET / HTTP/1.1\r\nHost: a\n\r\n"),
           std::string("GET / HTTP/1.1\rX\r\nHost: a\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 35),
           std::string("GET / HTTP/1.1\r\nHost: a\r\nX: a\x01"
                       "b\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\nHost: a\r\nX: a\x7f\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\nHost: a\r\nX(: a\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
           std::string("GET /\r\nHost: a\r\n\r\n"),
           std::string("GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
           std::string("GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
           std::string("GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
           std::string("GET / http/1.1\r\nHost: a\r\n\r\n"),
           std::string("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
           std::string("GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
           std::string("GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
           std::string("GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
           std::string(" GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
           std::string("G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
           std::string("GET x HTTP/1.1\r\nHost: a\r\n\r\n"),
           std::string("GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n"),
           std::string("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
           std::string("GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"),
       }) {
    EXPECT_EQ(judge(text), 400) << text;
  }
  EXPECT_EQ(judge("\x16\x03\x01\x02"), 0) << "TLS on the plain port is dropped";
}

TEST(HttpHead, LimitsItsSize) {
  std::string many = "GET / HTTP/1.1\r\nHost: a\r\n";
  for (int i = 0; i < 99; ++i) many += "x: y\r\n";
  EXPECT_EQ(judge(many + "\r\n"), 200);
  EXPECT_EQ(judge(many + "x: y\r\n\r\n"), 431);
  const std::string line_max(kHeadLineBytesMax - 3, 'v');
  EXPECT_EQ(judge(post("X: " + line_max + "\r\n")), 200);
  EXPECT_EQ(judge(post("X: " + line_max + "v\r\n")), 431);
  EXPECT_EQ(judge("GET /" + std::string(kHeadLineBytesMax, 'a') + " HTTP/1.1\r\nHost: a\r\n\r\n"),
            431);
  EXPECT_EQ(judge(std::string(kHeadBytesMax, 'a')), 431) << "before the head is complete";
  EXPECT_EQ(judge(std::string(kHeadBytesMax - 1, 'a')), -1);
}

TEST(HttpHead, ReadsWhatItSays) {
  HttpHead head;
  const std::string text =
      "PUT /collections/a/points/1?x=1&y=%20 HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n"
      "Connection: keep-alive, Close\r\nX-Request-Id:  abc \r\nExpect: 100-Continue\r\n\r\n";
  ASSERT_FALSE(parse_head(text, head));
  EXPECT_EQ(head.method, HttpMethod::kPut);
  EXPECT_EQ(head.path, "/collections/a/points/1");
  EXPECT_EQ(head.query, "x=1&y=%20");
  EXPECT_EQ(head.content_length, 12U);
  EXPECT_FALSE(head.keep_alive);
  EXPECT_TRUE(head.expect_continue);
  ASSERT_NE(head.find("x-request-id"), nullptr);
  EXPECT_EQ(*head.find("x-request-id"), "abc");
  ASSERT_FALSE(parse_head("GET / HTTP/1.0\r\n\r\n", head));
  EXPECT_FALSE(head.keep_alive);
  ASSERT_FALSE(parse_head("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", head));
  EXPECT_TRUE(head.keep_alive);
}

TEST(HttpHead, ScanIsTheSameForEverySplit) {
  const std::string good = "GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
  for (size_t i = 0; i <= good.size(); ++i) {
    HeadScan scan = scan_head(std::string_view(good).substr(0, i), 0);
    EXPECT_FALSE(scan.fault) << i;
    if (scan.end == 0) scan = scan_head(good, i);
    EXPECT_EQ(scan.end, good.size() - 4) << i;
  }
}

struct Decoded {
  ChunkDecoder::Progress progress = ChunkDecoder::Progress::kMore;
  std::string body;
};

Decoded decode(std::string_view text, size_t piece, uint64_t body_max) {
  Decoded out;
  ChunkDecoder decoder;
  for (size_t at = 0; at < text.size() && out.progress == ChunkDecoder::Progress::kMore;) {
    size_t used = 0;
    std::string_view data;
    out.progress = decoder.feed(text.substr(at, piece), body_max, used, data);
    out.body += data;
    at += used;
  }
  return out;
}

TEST(ChunkDecoder, DecodesWhateverTheSplit) {
  const std::string text = "3\r\nabc\r\n0A;ext=1\r\n0123456789\r\n0\r\nX-T: v\r\n\r\n";
  for (const size_t piece : {size_t{1}, size_t{2}, size_t{7}, text.size()}) {
    const Decoded out = decode(text, piece, 100);
    EXPECT_EQ(out.progress, ChunkDecoder::Progress::kDone) << piece;
    EXPECT_EQ(out.body, "abc0123456789") << piece;
  }
}

TEST(ChunkDecoder, RefusesWhatIsNotExact) {
  for (const std::string& text : {
           std::string("\r\n"),
           std::string("-1\r\n"),
           std::string("+1\r\n"),
           std::string("0x1\r\n"),
           std::string(" 1\r\n"),
           std::string("1 \r\n"),
           std::string("1\n"),
           std::string("1\r\nab\r\n"),
           std::string("1\r\na\n"),
           std::string("1\r\naX"),
           std::string("00000000000000001\r\n"),
           std::string("11111111111111111\r\n"),
           std::string("1;" + std::string(257, 'x') + "\r\n"),
           std::string("1;a\nb\r\n"),
           std::string("0\r\nno colon\r\n"),
           std::string("0\r\nX: a\n"),
           std::string("0\r\nContent-Length: 5\r\n"),
           std::string("0\r\nAuthorization: x\r\n"),
           std::string("0\r\nX: " + std::string(kTrailerBytesMax, 'x')),
       }) {
    EXPECT_EQ(decode(text, text.size(), 100).progress, ChunkDecoder::Progress::kBad) << text;
    EXPECT_EQ(decode(text, 1, 100).progress, ChunkDecoder::Progress::kBad) << text;
  }
  EXPECT_EQ(decode("5\r\n", 9, 4).progress, ChunkDecoder::Progress::kTooLarge);
  EXPECT_EQ(decode("3\r\nabc\r\n2\r\n", 99, 4).progress, ChunkDecoder::Progress::kTooLarge);
  EXPECT_EQ(decode("ffffffffffffffff\r\n", 99, UINT64_MAX / 2).progress,
            ChunkDecoder::Progress::kTooLarge);
  EXPECT_EQ(decode("3\r\nabc\r\nffffffffffffffff\r\n", 99, 100).progress,
            ChunkDecoder::Progress::kTooLarge)
      << "sizes must not wrap around";
}

TEST(PercentDecode, DecodesOnceAndOnlyUtf8) {
  EXPECT_EQ(percent_decode("a%2fb"), "a/b");
  EXPECT_EQ(percent_decode("%252f"), "%2f");
  EXPECT_EQ(percent_decode("%c3%A9"), "\xc3\xa9");
  EXPECT_EQ(percent_decode("a+b"), "a+b");
  EXPECT_EQ(percent_decode("a+b", true), "a b");
  for (const char* bad : {"%", "%4", "%zz", "%4g", "%c0%af", "%ff", "%ed%a0%80", "%f5%80%80%80"}) {
    EXPECT_EQ(percent_decode(bad), std::nullopt) << bad;
  }
}

TEST(ParseQuery, RefusesDuplicatesAndBadEncoding) {
  std::string problem;
  const auto query = parse_query("limit=10&after_id=a%20b&flag", problem);
  ASSERT_TRUE(query);
  ASSERT_EQ(query->size(), 3U);
  EXPECT_EQ((*query)[1].second, "a b");
  EXPECT_FALSE(parse_query("a=1&a=2", problem));
  EXPECT_FALSE(parse_query("a=1&%61=2", problem));
  EXPECT_FALSE(parse_query("a=%", problem));
}

TEST(RequestId, IsEchoedOnlyWhenHarmless) {
  EXPECT_TRUE(is_sane_request_id("abc-123"));
  EXPECT_TRUE(is_sane_request_id(std::string(128, 'x')));
  EXPECT_FALSE(is_sane_request_id(std::string(129, 'x')));
  for (const char* bad : {"", "a b", "a\tb", "\xc3\xa9", "a\r\nb"}) {
    EXPECT_FALSE(is_sane_request_id(bad));
  }
}

}  // namespace
}  // namespace aionbd
