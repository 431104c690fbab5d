#include "aionbd/status.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>

namespace aionbd {
namespace {

Status fail_if(bool fail) {
  return fail ? not_found("no such thing") : Status();
}

Result<std::unique_ptr<int>> boxed(int value) {
  if (value < 0) return invalid_argument("negative");
  return std::make_unique<int>(value);
}

Result<int> sum(int a, int b, int* evaluations) {
  RETURN_IF_ERROR((++*evaluations, fail_if(a == 0)));
  ASSIGN_OR_RETURN(const auto left, boxed(a));
  ASSIGN_OR_RETURN(const auto right, boxed(b));
  return *left + *right;
}

TEST(Status, TextAndContext) {
  EXPECT_EQ(Status().to_string(), "ok");
  const Status inner = corruption("bad checksum");
  EXPECT_EQ(inner.to_string(), "corruption: bad checksum");
  const Status outer = inner.with_context("file 7");
  EXPECT_EQ(outer.code(), Code::kCorruption);
  EXPECT_EQ(outer.message(), "file 7: bad checksum");
}

TEST(Status, EveryCodeHasItsOwnName) {
  std::set<std::string_view> names;
  for (int code = 0; code <= static_cast<int>(Code::kInUse); ++code) {
    names.insert(code_name(static_cast<Code>(code)));
  }
  EXPECT_EQ(names.size(), static_cast<size_t>(Code::kInUse) + 1);
  EXPECT_FALSE(names.contains("unknown"));
  EXPECT_EQ(code_name(static_cast<Code>(200)), "unknown");
}

TEST(Result, MacrosPassValuesAndErrors) {
  int evaluations = 0;
  EXPECT_EQ(sum(1, 2, &evaluations).value(), 3);
  EXPECT_EQ(evaluations, 1);
  EXPECT_EQ(sum(0, 2, &evaluations).error().to_string(), "not_found: no such thing");
  EXPECT_EQ(sum(-1, 2, &evaluations).error().to_string(), "invalid_argument: negative");
  EXPECT_EQ(sum(1, -2, &evaluations).error().to_string(), "invalid_argument: negative");
}

TEST(Result, StatusIsOkOrTheError) {
  EXPECT_TRUE(boxed(1).status().ok());
  EXPECT_TRUE(boxed(1).has_value());
  EXPECT_FALSE(boxed(-1));
  EXPECT_EQ(boxed(-1).status().code(), Code::kInvalidArgument);
}

TEST(Result, MovesItsValueOut) {
  auto result = boxed(5);
  const std::unique_ptr<int> taken = std::move(result).value();
  EXPECT_EQ(*taken, 5);
  EXPECT_EQ(**boxed(6), 6);
}

TEST(ResultDeathTest, MisuseAborts) {
  EXPECT_DEATH(boxed(-1).value(), "invalid_argument: negative");
  EXPECT_DEATH((void)boxed(1).error(), "holds a value");
  EXPECT_DEATH((void)Result<int>(Status()), "ok Status");
}

}  // namespace
}  // namespace aionbd
