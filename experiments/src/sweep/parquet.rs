//! The final table as a Parquet file: one row group, text and whole numbers always there, other numbers optional.
//! It refuses compression and statistics of the writer's own: the same table gives the same bytes.

use super::table::{Column, Table};
use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::Result;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use std::sync::Arc;

fn schema(table: &Table) -> Result<Arc<Type>> {
    let field = |(name, column): &(String, Column)| {
        let (physical, repetition, logical) = match column {
            Column::Text(_) => (Physical::BYTE_ARRAY, Repetition::REQUIRED, Some(LogicalType::String)),
            Column::Whole(_) => (Physical::INT64, Repetition::REQUIRED, None),
            Column::Number(_) => (Physical::DOUBLE, Repetition::OPTIONAL, None),
        };
        let builder = Type::primitive_type_builder(name, physical).with_repetition(repetition);
        builder.with_logical_type(logical).build().map(Arc::new)
    };
    let fields = table.columns.iter().map(field).collect::<Result<Vec<_>>>()?;
    Type::group_type_builder("cells").with_fields(fields).build().map(Arc::new)
}

/// The file's bytes.
pub(super) fn bytes(table: &Table) -> std::result::Result<Vec<u8>, String> {
    write(table).map_err(|e| format!("table.parquet cannot be made: {e}"))
}

fn write(table: &Table) -> Result<Vec<u8>> {
    let properties = WriterProperties::builder().set_created_by("cosched".into()).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema(table)?, Arc::new(properties))?;
    let mut rows = writer.next_row_group()?;
    for (_, column) in &table.columns {
        let Some(mut out) = rows.next_column()? else { break };
        match (column, out.untyped()) {
            (Column::Text(values), ColumnWriter::ByteArrayColumnWriter(out)) => {
                let values: Vec<ByteArray> = values.iter().map(|v| v.as_str().into()).collect();
                out.write_batch(&values, None, None)?;
            }
            (Column::Whole(values), ColumnWriter::Int64ColumnWriter(out)) => {
                out.write_batch(values, None, None)?;
            }
            (Column::Number(values), ColumnWriter::DoubleColumnWriter(out)) => {
                let levels: Vec<i16> = values.iter().map(|v| i16::from(v.is_some())).collect();
                let there: Vec<f64> = values.iter().filter_map(|v| *v).collect();
                out.write_batch(&there, Some(&levels), None)?;
            }
            // The schema was made of the same columns, so this cannot be.
            _ => return Err(parquet::errors::ParquetError::General("a column of another type".into())),
        }
        out.close()?;
    }
    rows.close()?;
    writer.into_inner()
}
