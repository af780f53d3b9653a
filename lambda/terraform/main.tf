# A function that drives the rules of its tables, with one mapping per stream. docs/lambda.md says what comes first.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "this" {
  name               = var.name
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "this" {
  name   = "replicator"
  role   = aws_iam_role.this.id
  policy = var.policy_json
}

resource "aws_iam_role_policy" "expired" {
  name = "expired"
  role = aws_iam_role.this.id
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sqs:SendMessage", Resource = aws_sqs_queue.expired.arn }]
  })
}

resource "aws_iam_role_policy_attachment" "logs" {
  role       = aws_iam_role.this.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
}

resource "aws_lambda_function" "this" {
  function_name                  = var.name
  role                           = aws_iam_role.this.arn
  handler                        = "replicator.lambda_handler.handler"
  runtime                        = var.runtime
  architectures                  = [var.architecture]
  filename                       = var.package
  source_code_hash               = filebase64sha256(var.package)
  memory_size                    = var.memory_size
  timeout                        = var.timeout
  reserved_concurrent_executions = var.concurrency

  environment {
    variables = merge(var.environment, {
      for name, value in {
        REPLICATOR_CONFIG_SSM = var.config_parameter
        REPLICATOR_CONFIG_S3  = var.config_object
        LAMBDA_CONCURRENCY    = tostring(var.concurrency)
      } : name => value if value != ""
    })
  }
}

# What left the stream before it was done: a last resort, since nothing is given up before.
resource "aws_sqs_queue" "expired" {
  name                      = "${var.name}-expired"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
}

resource "aws_lambda_event_source_mapping" "this" {
  for_each = toset(var.stream_arns)

  function_name                      = aws_lambda_function.this.arn
  event_source_arn                   = each.value
  starting_position                  = "TRIM_HORIZON"
  batch_size                         = var.batch_size
  maximum_batching_window_in_seconds = 1
  parallelization_factor             = var.parallelization_factor
  function_response_types            = ["ReportBatchItemFailures"]
  maximum_record_age_in_seconds      = -1
  maximum_retry_attempts             = -1
  bisect_batch_on_function_error     = false

  destination_config {
    on_failure {
      destination_arn = aws_sqs_queue.expired.arn
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "expired" {
  alarm_name          = "${var.name}-expired"
  alarm_description   = "Records left the stream before they were done. Let pods drive the rule once, or repair it."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.expired.name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 1
  threshold           = 0
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
}

resource "aws_cloudwatch_metric_alarm" "age" {
  for_each = {
    lag  = { milliseconds = 300000, periods = 5, description = "The oldest record waits for more than five minutes." }
    loss = { milliseconds = 43200000, periods = 1, description = "Records leave the stream in less than twelve hours." }
  }

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = "AWS/Lambda"
  metric_name         = "IteratorAge"
  dimensions          = { FunctionName = aws_lambda_function.this.function_name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = each.value.periods
  threshold           = each.value.milliseconds
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
}
