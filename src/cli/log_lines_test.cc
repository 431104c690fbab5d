#include "cli/log_lines.h"

#include <gtest/gtest.h>

namespace aionbd {
namespace {

TEST(LogLinesTest, ALineIsTakenApart) {
  const LogFields fields =
      parse_log_line("server: request failed id=7 route=\"GET /a b\" error=\"x: y=z\"");
  EXPECT_EQ(fields.component, "server");
  EXPECT_EQ(fields.message, "request failed");
  ASSERT_EQ(fields.values.size(), 3U);
  EXPECT_EQ(fields.values[1].second, "GET /a b");
  EXPECT_EQ(fields.values[2].second, "x: y=z");
  EXPECT_EQ(logfmt_text(fields),
            "component=server event=\"request failed\" id=7 route=\"GET /a b\" error=\"x: y=z\"");
  EXPECT_EQ(json_log_members(fields),
            R"("component":"server","event":"request failed","id":"7","route":"GET /a b",)"
            R"("error":"x: y=z")");
}

TEST(LogLinesTest, OddLinesStayOneLine) {
  for (const std::string line :
       {"", "=", "a=\"", "no component", "UPPER: x=1", "x: ", "w: a=\"b\nc\"", "\x01\x02"}) {
    const LogFields fields = parse_log_line(line);
    EXPECT_EQ(logfmt_text(fields).find('\n'), std::string::npos) << line;
    EXPECT_EQ(json_log_members(fields).find('\n'), std::string::npos) << line;
  }
  EXPECT_EQ(logfmt_text(parse_log_line("w: a=\"b\nc\"")), "component=w event=\"\" a=\"b\\u000ac\"");
}

}  // namespace
}  // namespace aionbd
